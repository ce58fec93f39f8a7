"""Rate models by votes on pairs of answers: a leaderboard, preferences for DPO, export and import of votes.

    scratch arena STORE --leaderboard                        print the table; write leaderboard.png, .csv and .json
    scratch arena STORE --export_preferences pairs.jsonl     prompt, chosen and rejected, for `scratch dpo`
    scratch arena STORE --export votes.jsonl                 LMArena's columns; also .json and .parquet
    scratch arena STORE --import votes.parquet other.sqlite  add votes that the store does not have yet

STORE is an SQLite file of battles and votes. Votes of people, of rules and of models are rated apart: --kind chooses.
Battles in which an answer says a contestant's name are not rated. docs/arena.md has the formulas.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from training.common.errors import UserError
from training.common.recipe import PathText, option, parse, positional

if TYPE_CHECKING:
    from training.arena.results import Filter
    from training.arena.store import Store


@dataclass
class ArenaConfig:
    """Options of `scratch arena`."""

    store: PathText = positional("SQLite file of battles and votes; --import makes it if it is missing")
    import_: list[PathText] = option(
        list, "stores, or files with LMArena's columns (.jsonl .json .parquet .csv), whose votes to add", several=True
    )
    export: PathText | None = option(None, "file to write all votes to (.jsonl, .json, .parquet)")
    export_preferences: PathText | None = option(None, "file to write preferences to, as JSON lines")
    leaderboard: bool = option(False, "print the ratings, and write them as PNG, CSV and JSON")
    output_dir: PathText | None = option(None, "folder for leaderboard.png, .csv and .json (default: the store's)")
    kind: Literal["human", "rule", "model"] = option(
        "human", "votes to use for --leaderboard and --export_preferences: by people, rules or models", group="Votes"
    )
    topic: Literal["code", "math", "other"] | None = option(None, "topic of the prompts to use", group="Votes")
    min_words: int | None = option(None, "words in the first prompt, at least", at_least=0, group="Votes")
    max_words: int | None = option(None, "words in the first prompt, at most", at_least=0, group="Votes")
    style_control: bool = option(False, "control the ratings for length and Markdown of the answers", group="Votes")

    def __post_init__(self):
        if not (self.import_ or self.export or self.export_preferences or self.leaderboard):
            raise ValueError("'store': nothing to do; add --leaderboard, --export_preferences, --export or --import")
        for key in ("export", "export_preferences"):
            file = getattr(self, key)
            if file and not Path(file).absolute().parent.is_dir():
                raise ValueError(f"'{key}': the folder of {file} does not exist; make it first")
        if self.output_dir and not Path(self.output_dir).is_dir():
            raise ValueError(f"'output_dir': {self.output_dir} is not a folder; make it first")


def main(arguments: list[str]) -> None:
    """Work on a store.

    1. Import votes, if requested; only this writes to the store.
    2. Export votes and preferences.
    3. Print the leaderboard, and write it.

    Raises:
        UserError: a mistake in the arguments, a store or file that cannot be read, or no votes to rate.
    """
    config = parse(ArenaConfig, arguments, __doc__, recipe=False)

    from training.arena.exchange import check_export
    from training.arena.results import Filter
    from training.arena.store import Store

    if config.export:
        check_export(Path(config.export))
    chosen = Filter(config.kind, config.topic, config.min_words, config.max_words)
    with Store.open(Path(config.store), writes=bool(config.import_)) as store:
        for file in config.import_:
            add_votes(store, Path(file))
        if config.export:
            write_votes(store, Path(config.export))
        if config.export_preferences:
            write_preferences(store, chosen, Path(config.export_preferences))
        if config.leaderboard:
            show_leaderboard(store, chosen, config)


def add_votes(store: "Store", file: Path) -> None:
    """Import a file, and print what was new."""
    from training.arena.exchange import import_votes

    done = import_votes(store, file)
    print(f"arena: {file}: {done.found:,} votes, of which {done.votes:,} are new, on {done.battles:,} new battles")


def write_votes(store: "Store", file: Path) -> None:
    """Export all votes."""
    from training.arena.exchange import export_votes

    print(f"arena: wrote {export_votes(store, file):,} votes to {file}")


def write_preferences(store: "Store", chosen: "Filter", file: Path) -> None:
    """Export preferences, and print what was left out.

    Raises:
        UserError: there are none.
    """
    from training.arena.exchange import write_jsonl
    from training.arena.preferences import collect_preferences

    found = collect_preferences(store, chosen)
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in sorted(found.left_out.items()))
    if not found.records:
        raise UserError(
            f"'export_preferences': no vote of the kind '{chosen.kind}' is a preference (left out: "
            f"{left_out or 'none'}); collect votes, or choose another --kind"
        )
    write_jsonl(file, found.records)
    print(f"arena: wrote {len(found.records):,} preferences to {file}; left out: {left_out or 'none'}")


def show_leaderboard(store: "Store", chosen: "Filter", config: ArenaConfig) -> None:
    """Print the leaderboard and what is known of the raters, and write the three files."""
    from training.arena.agreement import rater_remarks
    from training.arena.leaderboard import make_leaderboard
    from training.arena.results import read_results
    from training.common.files import write_whole
    from training.plots.leaderboard import draw_leaderboard  # imports matplotlib when it draws

    board = make_leaderboard(read_results(store, chosen), config.style_control)
    print(board.table())
    remarks = [*board.remarks(), *rater_remarks(store, chosen.kind)]
    for remark in remarks:
        print(f"arena: {remark}")
    folder = Path(config.output_dir or Path(config.store).parent)
    write_whole(folder / "leaderboard.json", json.dumps(board.to_json() | {"remarks": remarks}, indent=1) + "\n")
    write_whole(folder / "leaderboard.csv", board.to_csv())
    draw_leaderboard(
        folder / "leaderboard.png",
        [row.name for row in board.rows],
        [(row.rating, row.lower, row.upper) for row in board.rows],
        board.win_rates,
        board.battles,
        [(moment.votes, moment.ratings) for moment in board.history],
        f"{board.votes:,} votes ({chosen.kind}), {board.voters:,} voters",
    )
    print(f"arena: wrote leaderboard.png, leaderboard.csv and leaderboard.json in {folder}")
