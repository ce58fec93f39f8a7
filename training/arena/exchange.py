"""Export and import of votes: LMArena's column names, as JSON, JSON lines or Parquet, and other stores.

Exported records have the columns of lmsys/chatbot_arena_conversations (question_id, model_a, model_b, winner, judge,
conversation_a, conversation_b, turn, anony, tstamp), and ours after them. Imported ones may also have the columns of
arena-human-preference-55k, -100k and -140k. An import adds what a store does not hold yet, so that it can be repeated.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from training.arena.store import KINDS, WINNERS, Battle, Contestant, Message, Rejected, Store, Vote, Winner, is_store
from training.common.errors import UserError, nearest, one_line
from training.common.files import open_whole, write_whole
from training.corpus.sources.records import read_records
from training.model_io.messages import check_messages, without_nulls

Record = dict[str, Any]

FORMATS = (".jsonl", ".json", ".parquet")
SEEDS = 2**63  # what the column of a store can hold
_WINNERS: dict[str, Winner] = {name: name for name in WINNERS}
_WINNERS |= {"tie (bothbad)": "both_bad", "tie(bothbad)": "both_bad", "bothbad": "both_bad", "both bad": "both_bad"}
_ONE_HOT: dict[str, Winner] = {"winner_model_a": "model_a", "winner_model_b": "model_b", "winner_tie": "tie"}


@dataclass(frozen=True)
class Imported:
    """Numbers of an import: votes found in the file, and battles and votes that were new."""

    found: int
    battles: int
    votes: int


def check_export(path: Path) -> None:
    """Reject a file that votes cannot be exported to. Raises UserError."""
    if path.suffix not in FORMATS:
        raise UserError(f"'export': {path} must end with {', '.join(FORMATS)}")


def export_votes(store: Store, path: Path) -> int:
    """Write all votes, a record each; return their number."""
    records = list(as_records(store))
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        with open_whole(path) as stream:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), stream)
    elif path.suffix == ".json":
        write_whole(path, json.dumps(records, ensure_ascii=False, indent=1) + "\n")
    else:
        write_jsonl(path, records)
    return len(records)


def write_jsonl(path: Path, records: Iterable[Record]) -> None:
    """Write records, one a line."""
    write_whole(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def as_records(store: Store) -> Iterator[Record]:
    """The votes with LMArena's columns, in order of arrival. `sampling` is JSON text, so that all have one type."""
    names = {each.fingerprint: each.name for each in store.contestants()}
    battles = {battle.id: battle for battle in store.battles()}
    for vote in store.votes():
        battle = battles[vote.battle]
        yield {
            "question_id": battle.id,
            "model_a": names[battle.model_a],
            "model_b": names[battle.model_b],
            "winner": vote.winner,
            "judge": vote.rater,
            "conversation_a": battle.conversation_a,
            "conversation_b": battle.conversation_b,
            "turn": sum(message["role"] == "user" for message in battle.conversation_a),
            "anony": True,
            "tstamp": vote.time,
            "kind": vote.kind,
            "swapped": vote.swapped,
            "leaked": battle.leaked,
            "began": battle.time,
            "voter": battle.voter,
            "fingerprint_a": battle.model_a,
            "fingerprint_b": battle.model_b,
            "sampling": json.dumps(battle.sampling, ensure_ascii=False),
            "seed_a": battle.seed_a,
            "seed_b": battle.seed_b,
        }


def import_votes(store: Store, path: Path) -> Imported:
    """Add the votes of a file, or of another store, that this store does not have.

    Raises:
        UserError: the file cannot be read, or is of another format; nothing of it is then added.
    """
    if not path.is_file():
        raise UserError(f"'import': {path}: no such file")
    if is_store(path):
        if path.samefile(store.path):
            raise UserError(f"'import': {path} is the store itself; give another one")
        with Store.open(path) as other:
            contestants, votes = other.contestants(), other.votes()
            battles = list(other.battles("WHERE id IN (SELECT battle FROM votes)"))  # the others may go on
    else:
        contestants, battles, votes = read_votes(path)
    try:
        return Imported(len(votes), *store.add(contestants, battles, votes))
    except Rejected as error:
        raise UserError(f"'import': {path}: {error}; an id must belong to one battle") from None


def read_votes(path: Path) -> tuple[list[Contestant], list[Battle], list[Vote]]:
    """The content of a file with LMArena's columns. Raises UserError, with the number of the record."""
    contestants: dict[str, Contestant] = {}
    battles, votes, seen = [], [], Counter()
    for number, record in read_records(path):
        try:
            each, battle, vote = parse_record(record, seen)
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"'import': {path}:{number}: {one_line(error)}") from None
        contestants |= {contestant.fingerprint: contestant for contestant in each}
        battles.append(battle)
        votes.append(vote)
    if not votes:
        raise UserError(f"'import': {path} holds no votes")
    return list(contestants.values()), battles, votes


def parse_record(record: Record, seen: Counter[str]) -> tuple[list[Contestant], Battle, Vote]:
    """One record as two models, a battle and a vote.

    A record without an id gets one from its content, so that the same file gives the same ids.

    Args:
        seen: how often each content occurred so far in the file; equal records without an id are different votes.

    Raises:
        ValueError: what is missing or wrong.
    """
    for column in ("model_a", "model_b"):
        if not isinstance(record.get(column), str) or not record[column]:
            raise ValueError(f"'{column}' is not the name of a model; the columns are {', '.join(record)}")
    winner = _winner(record)
    sides = [
        Contestant(record[f"model_{side}"], record.get(f"fingerprint_{side}") or f"name:{record[f'model_{side}']}")
        for side in ("a", "b")
    ]
    if sides[0].fingerprint == sides[1].fingerprint:
        raise ValueError(f"{record['model_a']} battles itself")
    identity = record.get("question_id") or record.get("id")
    if identity is None:
        content = json.dumps(record, sort_keys=True, default=str)
        seen[content] += 1
        identity = hashlib.sha256(f"{content}{seen[content]}".encode()).hexdigest()[:32]
    kind = record.get("kind", "human")
    if kind not in KINDS:
        raise ValueError(f"'kind': {kind!r} is not a kind of vote; {nearest(str(kind), KINDS)}")
    time = _time(record)
    rater = str(record.get("judge") or record.get("evaluation_session_id") or record.get("judge_hash") or "unknown")
    conversations = [_conversation(record, side) for side in ("a", "b")]
    battle = Battle(
        sides[0].fingerprint,
        sides[1].fingerprint,
        str(record.get("voter") or rater),
        *conversations,
        json.loads(record["sampling"]) if record.get("sampling") else {},
        *(_seed(record, column) for column in ("seed_a", "seed_b")),
        _is_true(record.get("leaked")),
        str(identity),
        float(record.get("began", time)),
    )
    return sides, battle, Vote(str(identity), rater, winner, kind, _is_true(record.get("swapped")), time)


def _winner(record: Record) -> Winner:
    """The winner in a record, also of the form with a column for each outcome."""
    if "winner" not in record:
        chosen = [winner for column, winner in _ONE_HOT.items() if _is_true(record.get(column))]
        if len(chosen) != 1:
            raise ValueError(f"'winner' is missing; the columns are {', '.join(record)}")
        return chosen[0]
    written = str(record["winner"])
    if written.strip().lower() not in _WINNERS:
        raise ValueError(f"'winner': '{written}' is not an outcome; {nearest(written, _WINNERS)}")
    return _WINNERS[written.strip().lower()]


def _is_true(value: Any) -> bool:
    """Whether a value means yes. In a table all values are text."""
    return str(value).lower() in ("1", "1.0", "true")


def _seed(record: Record, column: str) -> int | None:
    """The seed of an answer; in a table it is text, and may be missing."""
    if record.get(column) in (None, ""):
        return None
    try:
        seed = int(record[column])
    except (ValueError, TypeError, OverflowError):
        seed = -1
    if not 0 <= seed < SEEDS:
        raise ValueError(f"'{column}' is not a whole number from 0 to {SEEDS - 1}")
    return seed


def _time(record: Record) -> float:
    """Seconds since 1970 of a record; 0 if it does not say."""
    value = record.get("tstamp", record.get("timestamp")) or 0
    try:
        seconds = value.timestamp() if isinstance(value, datetime) else float(value)
    except ValueError:
        seconds = datetime.fromisoformat(value).timestamp()
    if not math.isfinite(seconds):
        raise ValueError("'tstamp' is not a time")
    return seconds


def _conversation(record: Record, side: str) -> list[Message]:
    """The conversation of a side: messages, or the columns `prompt` and `response_SIDE`, lists as text or one text."""
    column = f"conversation_{side}"
    if record.get(column) is not None:
        value = record[column]
        value = json.loads(value) if isinstance(value, str) else value
        return check_messages(without_nulls(value), column)
    if record.get("prompt") is None:
        return []
    prompts, answers = (_texts(record.get(name)) for name in ("prompt", f"response_{side}"))
    pairs = zip(prompts, answers, strict=False)
    return [
        {"role": role, "content": text or ""}
        for prompt, answer in pairs
        for role, text in (("user", prompt), ("assistant", answer))
    ]


def _texts(value: Any) -> list[Any]:
    """Texts of turns: a list, JSON text of a list, or the text of a single turn."""
    if isinstance(value, str):
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = None
        return parsed if isinstance(parsed, list) else [value]
    return value or []
