"""Compare models by votes: anonymous battles on a web page, ratings, and preferences for DPO.

    scratch arena runs/a/export runs/b/export                open the page; votes go to arena.sqlite
    scratch arena runs/a/export runs/b/export --prompts validation.jsonl --battles 200 --voter parses defines
                                                             battles without a page, with the votes of rules
    scratch arena arena.sqlite --voter runs/reward           a reward model votes on all battles of a store
    scratch arena --leaderboard arena.sqlite                 print the table; write leaderboard.png, .csv and .json
    scratch arena arena.sqlite --export_preferences pairs.jsonl     prompt, chosen and rejected, for `scratch dpo`
    scratch arena arena.sqlite --export votes.jsonl                 LMArena's columns; also .json and .parquet
    scratch arena arena.sqlite --import votes.parquet other.sqlite  add votes that the store does not have yet

Contestants are folders of chat models, names on the Hub, and addresses with OpenAI's interface, such as
http://localhost:8000/v1 (with several models there: http://localhost:8000/v1#NAME). The key of endpoints is the
environment variable ARENA_API_KEY. A store is an SQLite file of battles and votes. Votes of people, of rules and of
models are rated apart: --kind chooses. A voter is one or several reward functions (the prompts have their columns), the
folder of a reward model, or an endpoint, which sees the answers in both orders. Battles without a page continue with
the same command after an interruption. Battles in which an answer says a contestant's name are not rated. docs/arena.md
has the formulas.
"""

import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from training.chat.sampling import Sampling
from training.common.errors import UserError
from training.stages.flags import parse
from training.stages.help import command_line
from training.stages.recipe import PathText, option, positional

if TYPE_CHECKING:
    from training.arena.results import Filter
    from training.arena.store import Store
    from training.arena.tournament import Tally
    from training.arena.voters import Voter


@dataclass(kw_only=True)
class ArenaConfig(Sampling):
    """Options of `scratch arena`: sampling of all contestants, and what to do with a store."""

    given: list[PathText] = positional(
        "the contestants of battles; with --leaderboard, an export or --import, or for more votes, the store",
        many=True,
        metavar="MODEL... | STORE",
    )
    store: PathText = option("arena.sqlite", "SQLite file that battles and votes go to", group="Battles")
    prompts: PathText | None = option(
        None, "file of records to take the prompts of battles from, and the columns for rules", group="Without a page"
    )
    battles: int | None = option(
        None, "battles to play (default: one for each prompt)", at_least=1, group="Without a page"
    )
    voter: list[str] = option(
        list,
        "reward functions, the folder of a reward model, or an endpoint that votes",
        several=True,
        group="Without a page",
    )
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
        if self.battles and not self.prompts:
            raise ValueError("'battles': battles without a page need prompts; give --prompts FILE")
        if self.voter and not self.prompts and not self.reads_store:
            raise ValueError("'voter': on the page, people vote; give --prompts FILE, or one store to vote on")
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

    @property
    def settings(self) -> dict[str, float]:
        """Sampling settings of all answers, as fields of OpenAI's interface; each battle has seeds of its own."""
        return {key: value for key, value in self.as_request().items() if key != "seed"}

    def page_options(self) -> list[str]:
        """The given options that only the page uses."""
        return given(self, ["store", "host", "port", *(field.name for field in fields(Sampling))])

    def store_options(self) -> list[str]:
        """The given options that only a leaderboard or an export uses."""
        return given(self, ["output_dir", "kind", "topic", "min_words", "max_words", "style_control"])

    @property
    def reads_store(self) -> bool:
        """Whether the command works on a store, without a page."""
        works = self.import_ or self.export or self.export_preferences or self.leaderboard
        return bool(works or (self.voter and len(self.given) == 1))


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
    elif config.prompts:
        play_battles(config)
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
            battles = Battles(polls.next_pair, polls.keep, config.settings, words, report, config.seed)
            run_pages(create_app(battles, polls), listener, config.host)
    print(f"arena: votes are in {config.store}")
    print(f"next: {command_line('arena', '--leaderboard', config.store)}")


def play_battles(config: ArenaConfig) -> None:
    """Play battles over the prompts of a file, with the votes of the voter, and write them to the store."""
    import asyncio

    from transformers.utils import logging

    from training.arena.contestants import opened
    from training.arena.store import Store
    from training.arena.tournament import Tournament
    from training.arena.voters import as_messages, open_voter
    from training.eval.measures.records import read_questions

    questions = read_questions(config.prompts, "prompts")
    voter = open_voter(config.voter, questions, config.prompts) if config.voter else None
    battles = config.battles or len(questions)
    with Store.open(Path(config.store), writes=True) as store, opened(config.given) as contestants:
        logging.set_verbosity_error()  # its warnings about settings concern nobody here
        prompts = [as_messages(question.prompt) for question in questions]
        tournament = Tournament(store, contestants, prompts, config.settings, config.seed, voter, report)
        tournament.open()
        tally = asyncio.run(tournament.play(battles))
    failed = ", ".join(f"{name} failed in {count:,}" for name, count in tally.failed.items())
    print(f"arena: {tally.played:,} new battles in {config.store}" + (f"; {failed}" if failed else ""))
    if voter:
        print_votes(voter, tally)
        print(f"next: {command_line('arena', '--leaderboard', config.store, '--kind', voter.kind)}")


def cast_votes(store: "Store", config: ArenaConfig) -> None:
    """Let the voter vote on the battles that lack its vote, and print how it agrees with people."""
    import asyncio

    from training.arena.agreement import rater_remarks
    from training.arena.tournament import vote_on
    from training.arena.voters import open_voter
    from training.eval.measures.records import read_questions

    questions = read_questions(config.prompts, "prompts") if config.prompts else []
    voter = open_voter(config.voter, questions, config.prompts)
    print_votes(voter, asyncio.run(vote_on(store, voter, report)))
    for remark in rater_remarks(store, voter.kind, voter.rater):
        print(f"arena: {remark}")


def print_votes(voter: "Voter", tally: "Tally") -> None:
    """Print how many battles a voter voted on."""
    without = ", ".join(f"{count:,} {reason}" for reason, count in tally.without_vote.items())
    print(f"arena: {voter.rater} voted on {tally.voted:,} battles ({voter.kind}); no vote: {without or 'none'}")


def report(line: str) -> None:
    """Print a line about a contestant for who runs the arena."""
    print(f"arena: {line}", file=sys.stderr, flush=True)


def work_on_store(config: ArenaConfig) -> None:
    """Import votes, vote, export votes and preferences, and show the leaderboard."""
    from training.arena.exchange import check_export
    from training.arena.results import Filter
    from training.arena.store import Store

    if config.export:
        check_export(Path(config.export))
    chosen = Filter(config.kind, config.topic, config.min_words, config.max_words)
    with Store.open(Path(config.given[0]), writes=bool(config.import_ or config.voter)) as store:
        for file in config.import_:
            add_votes(store, Path(file))
        if config.voter:
            cast_votes(store, config)
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
