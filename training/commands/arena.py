"""Compare models by votes: anonymous battles on a web page, ratings, and preferences for DPO.

    scratch arena runs/a/export runs/b/export                open the page; votes go to arena.sqlite
    scratch arena --leaderboard arena.sqlite                 print the table; write leaderboard.png, .csv and .json
    scratch arena arena.sqlite --export_preferences pairs.jsonl     prompt, chosen and rejected, for `scratch dpo`
    scratch arena arena.sqlite --export votes.jsonl                 LMArena's columns; also .json and .parquet
    scratch arena arena.sqlite --import votes.parquet other.sqlite  add votes that the store does not have yet

Contestants are folders of chat models, names on the Hub, and addresses with OpenAI's interface, such as
http://localhost:8000/v1 (with several models there: http://localhost:8000/v1#NAME). The key of endpoints is the
environment variable ARENA_API_KEY. A store is an SQLite file of battles and votes. Votes of people, of rules and of
models are rated apart: --kind chooses. Battles in which an answer says a contestant's name are not rated. docs/arena.md
has the formulas.
"""

import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from training.chat.sampling import Sampling
from training.common.errors import UserError
from training.stages.help import command_line
from training.stages.recipe import PathText, option, parse, positional

if TYPE_CHECKING:
    from training.arena.results import Filter
    from training.arena.store import Store


@dataclass(kw_only=True)
class ArenaConfig(Sampling):
    """Options of `scratch arena`: sampling of all contestants, and what to do with a store."""

    given: list[PathText] = positional(
        "the contestants of battles on the page; with --leaderboard, an export or --import, the store",
        many=True,
        metavar="MODEL... | STORE",
    )
    store: PathText = option("arena.sqlite", "SQLite file that the page's battles and votes go to", group="Page")
    host: str = option("127.0.0.1", "address to listen on; any other demands a token", group="Page")
    port: int = option(8000, "port to listen on; 0 for a free one", at_least=0, below=2**16, group="Page")
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
        if self.reads_store and len(self.given) != 1:
            raise ValueError(f"'given': one store is needed here, not {len(self.given)}; name its SQLite file")
        if not self.reads_store and len(self.given) < 2:
            raise ValueError(
                "'given': a battle needs two contestants or more; `scratch chat --web` opens a page with one model. "
                "For a store, add --leaderboard, --export_preferences, --export or --import"
            )
        without_effect = self.page_options() if self.reads_store else self.store_options()
        if without_effect:
            what = "a store" if self.reads_store else "battles on the page"
            raise ValueError(f"'{without_effect[0]}': has no effect with {what}; leave it out")
        for key in ("export", "export_preferences"):
            file = getattr(self, key)
            if file and not Path(file).absolute().parent.is_dir():
                raise ValueError(f"'{key}': the folder of {file} does not exist; make it first")
        if self.output_dir and not Path(self.output_dir).is_dir():
            raise ValueError(f"'output_dir': {self.output_dir} is not a folder; make it first")


    def page_options(self) -> list[str]:
        """The given options that only the page uses."""
        return given(self, ["store", "host", "port", *(field.name for field in fields(Sampling))])

    def store_options(self) -> list[str]:
        """The given options that only a leaderboard or an export uses."""
        return given(self, ["output_dir", "kind", "topic", "min_words", "max_words", "style_control"])

    @property
    def reads_store(self) -> bool:
        """Whether the command works on a store, without a page."""
        return bool(self.import_ or self.export or self.export_preferences or self.leaderboard)


def given(config: ArenaConfig, keys: list[str]) -> list[str]:
    """The keys among these whose value is not the default."""
    defaults = {field.name: field.default for field in fields(config)}
    return [key for key in keys if getattr(config, key) != defaults[key]]


def main(arguments: list[str]) -> None:
    """Open the page for battles, or work on a store.

    Raises:
        UserError: a mistake in the arguments, an address, contestant, store or file that cannot be used, or no votes to
            rate.
    """
    config = parse(ArenaConfig, arguments, __doc__, recipe=False)
    if config.reads_store:
        work_on_store(config)
    else:
        hold_battles(config)


def hold_battles(config: ArenaConfig) -> None:
    """Take the port and the store, load the contestants, and serve the page until a signal."""
    from training.serving.listening import listen

    with listen(config.host, config.port) as listener:
        from transformers.utils import logging

        from training.arena.contestants import identity_words, opened
        from training.arena.store import Store
        from training.web.arena_app import create_app
        from training.web.battles import Battles
        from training.web.polls import Polls
        from training.web.run import run_pages

        with Store.open(Path(config.store), writes=True) as store, opened(config.given) as contestants:
            logging.set_verbosity_error()  # its warnings about settings concern nobody who votes
            polls = Polls(store, contestants, config.seed)
            polls.open()
            words = identity_words(contestants)
            settings = {key: value for key, value in config.as_request().items() if key != "seed"}
            battles = Battles(polls.next_pair, polls.keep, settings, words, report, config.seed)
            run_pages(create_app(battles, polls), listener, config.host)
    print(f"arena: votes are in {config.store}")
    print(f"next: {command_line('arena', '--leaderboard', config.store)}")


def report(line: str) -> None:
    """Print a line about a contestant for who runs the arena."""
    print(f"arena: {line}", file=sys.stderr, flush=True)


def work_on_store(config: ArenaConfig) -> None:
    """Import votes, export votes and preferences, and show the leaderboard. Only an import writes to the store."""
    from training.arena.exchange import check_export
    from training.arena.results import Filter
    from training.arena.store import Store

    if config.export:
        check_export(Path(config.export))
    chosen = Filter(config.kind, config.topic, config.min_words, config.max_words)
    with Store.open(Path(config.given[0]), writes=bool(config.import_)) as store:
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
    folder = Path(config.output_dir or Path(config.given[0]).parent)
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
