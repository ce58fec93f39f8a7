"""The store of an arena: battles and votes in one SQLite file, for the page that collects them and all that reads them.

A vote is on the disk when `Store.vote` returns. The schema itself rejects a second vote, a vote on another's battle,
and a change of a battle that has a vote.
"""

import contextlib
import errno
import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from training.common.errors import UserError, one_line

Message = dict[str, Any]
Kind = Literal["human", "rule", "model"]
Winner = Literal["model_a", "model_b", "tie", "both_bad"]

KINDS: tuple[Kind, ...] = ("human", "rule", "model")
WINNERS: tuple[Winner, ...] = ("model_a", "model_b", "tie", "both_bad")
APPLICATION = 0x41524E41  # `application_id` of the file: "ARNA"
VERSION = 1  # of the schema
SQLITE_HEADER = b"SQLite format 3\0"
IDENTITY = "model_a", "model_b", "conversation_a", "conversation_b"  # of a battle under one id, also in copies
WAIT = 30.0  # seconds for another process's transaction

SCHEMA = """
CREATE TABLE secret (salt TEXT NOT NULL);
CREATE TABLE contestants (
    fingerprint TEXT PRIMARY KEY,       -- of the weights and settings, or of the address
    name TEXT NOT NULL
);
CREATE TABLE battles (
    id TEXT PRIMARY KEY,
    time REAL NOT NULL,                 -- seconds since 1970, when it began
    model_a TEXT NOT NULL REFERENCES contestants,   -- on the left
    model_b TEXT NOT NULL REFERENCES contestants,
    voter TEXT NOT NULL,                -- salted: whose battle it is
    conversation_a TEXT NOT NULL,       -- messages as JSON
    conversation_b TEXT NOT NULL,
    sampling TEXT NOT NULL,             -- settings as JSON
    seed_a INTEGER,
    seed_b INTEGER,
    leaked INTEGER NOT NULL DEFAULT 0 CHECK (leaked IN (0, 1)),
    CHECK (model_a <> model_b)
);
CREATE TABLE votes (
    battle TEXT NOT NULL REFERENCES battles,
    rater TEXT NOT NULL,                -- the battle's voter, or the name of a rule or model
    kind TEXT NOT NULL CHECK (kind IN ('human', 'rule', 'model')),
    swapped INTEGER NOT NULL DEFAULT 0 CHECK (swapped IN (0, 1)),   -- the rater saw model_b's answer first
    winner TEXT NOT NULL CHECK (winner IN ('model_a', 'model_b', 'tie', 'both_bad')),
    time REAL NOT NULL,
    PRIMARY KEY (battle, rater, swapped)
);
CREATE UNIQUE INDEX one_human_vote ON votes (battle) WHERE kind = 'human';
CREATE INDEX votes_in_order ON votes (time, battle);
CREATE TRIGGER only_the_owner_votes BEFORE INSERT ON votes WHEN NEW.kind = 'human' BEGIN
    SELECT RAISE(ABORT, 'this battle is of another voter')
    WHERE NEW.rater IS NOT (SELECT voter FROM battles WHERE id = NEW.battle);
END;
CREATE TRIGGER a_vote_stays BEFORE UPDATE ON votes BEGIN SELECT RAISE(ABORT, 'a vote cannot be changed'); END;
CREATE TRIGGER a_voted_battle_stays BEFORE UPDATE ON battles
WHEN EXISTS (SELECT 1 FROM votes WHERE battle = OLD.id) BEGIN
    SELECT RAISE(ABORT, 'this battle has a vote and is closed');
END;
"""


class Rejected(ValueError):
    """A vote or a turn that the store does not accept; its text says why and names no model."""


@dataclass(frozen=True)
class Contestant:
    """A model in the arena.

    Attributes:
        name: as tables show it.
        fingerprint: what identifies its weights and settings. Two fingerprints under one name are two models.
    """

    name: str
    fingerprint: str


@dataclass(frozen=True)
class Battle:
    """One comparison of two models.

    Attributes:
        model_a, model_b: fingerprints; a is on the left.
        voter: salted, whose battle it is.
        conversation_a, conversation_b: messages with `role` and `content`.
        sampling: settings by name.
        leaked: whether an answer says a contestant's name, so that the battle is not rated.
        time: seconds since 1970, when it began.
    """

    model_a: str
    model_b: str
    voter: str
    conversation_a: list[Message] = field(default_factory=list)
    conversation_b: list[Message] = field(default_factory=list)
    sampling: dict[str, Any] = field(default_factory=dict)
    seed_a: int | None = None
    seed_b: int | None = None
    leaked: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    time: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Vote:
    """A vote on a battle.

    Attributes:
        rater: the battle's voter, or the name of a rule or model.
        winner: in terms of the battle's sides, also if the rater saw them swapped.
        swapped: whether the rater saw model_b's answer first.
        time: seconds since 1970.
    """

    battle: str
    rater: str
    winner: Winner
    kind: Kind = "human"
    swapped: bool = False
    time: float = field(default_factory=time.time)


class Store:
    """An open store. Threads may share it; of several processes, only one may write."""

    def __init__(self, path: Path, connection: sqlite3.Connection, held: FileLock | None = None):
        self.path = path
        self._connection = connection
        self._held = held
        self._one_at_a_time = threading.RLock()

    @classmethod
    def open(cls, path: Path, writes: bool = False) -> "Store":
        """Open a store.

        Args:
            writes: make it if it is missing, and keep every other writer out until `close`.

        Raises:
            UserError: no such store, not a store, damaged, of a newer version, or another process writes to it.
        """
        if not writes and not path.is_file():
            raise UserError(f"{path}: no such store; `scratch arena` makes one, or --import")
        if not path.absolute().parent.is_dir():
            raise UserError(f"{path}: its folder does not exist; make it first")
        held = _hold(path) if writes else None
        try:
            with one_line_errors(path):
                connection = _connect(path, writes)
        except BaseException:
            if held:
                held.release()
            raise
        return cls(path, connection, held)

    def close(self) -> None:
        """Close the file, and let other writers in. A store that was made and stayed empty is deleted."""
        with self._one_at_a_time:
            empty = self._held and not self._connection.execute("SELECT count(*) FROM contestants").fetchone()[0]
            self._connection.close()
            if empty:  # deleted before another process may write to it
                self.path.unlink(missing_ok=True)
                with contextlib.suppress(PermissionError):  # Windows, where the release deletes it
                    Path(self._held.lock_file).unlink(missing_ok=True)
            if self._held:
                self._held.release()
            self._held = None

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def salted(self, voter: str) -> str:
        """The name of a voter in the store: a keyed hash, which differs between stores.

        Args:
            voter: what recognizes a person, such as a cookie.
        """
        ((salt,),) = self._read("SELECT salt FROM secret")
        return hmac.new(salt.encode(), voter.encode(), hashlib.sha256).hexdigest()[:32]

    def add_contestant(self, contestant: Contestant) -> None:
        """Add a model, by its name and fingerprint; a known fingerprint keeps the name it has."""
        self._write("INSERT OR IGNORE INTO contestants VALUES (?, ?)", (contestant.fingerprint, contestant.name))

    def contestants(self) -> list[Contestant]:
        """All models, in the order in which they were added."""
        rows = self._read("SELECT name, fingerprint FROM contestants ORDER BY rowid")
        return [Contestant(*row) for row in rows]

    def begin(self, battle: Battle) -> None:
        """Write a new battle."""
        self._write(f"INSERT INTO battles VALUES ({', '.join('?' * 11)})", _row(battle))

    def update(self, battle: Battle) -> None:
        """Write the conversations of a battle, and whether it leaked.

        Raises:
            Rejected: it has a vote.
        """
        conversations = (_json(battle.conversation_a), _json(battle.conversation_b))
        self._write(
            "UPDATE battles SET conversation_a = ?, conversation_b = ?, leaked = ? WHERE id = ?",
            (*conversations, battle.leaked, battle.id),
        )

    def vote(self, vote: Vote) -> None:
        """Write a vote. It is on the disk when this returns.

        Raises:
            Rejected: no such battle, it is another's, or it has this vote already.
        """
        self._write("INSERT INTO votes VALUES (?, ?, ?, ?, ?, ?)", _vote_row(vote))

    def battle(self, id: str) -> Battle | None:
        """The battle of this id."""
        return next(self.battles("WHERE id = ?", (id,)), None)

    def battles(self, where: str = "", values: Iterable[Any] = ()) -> Iterator[Battle]:
        """Battles, in the order of their beginning.

        Args:
            where: a condition in SQL, with its `values`.
        """
        for row in self._read(f"SELECT * FROM battles {where} ORDER BY time, id", tuple(values)):
            id, began, model_a, model_b, voter, conversation_a, conversation_b, sampling, *seeds, leaked = row
            texts = map(json.loads, (conversation_a, conversation_b, sampling))
            yield Battle(model_a, model_b, voter, *texts, *seeds, bool(leaked), id, began)

    def votes(self, kind: Kind | None = None, rater: str | None = None) -> list[Vote]:
        """Votes, in order of arrival: all, or those of a kind or a rater."""
        chosen = "WHERE kind = coalesce(?, kind) AND rater = coalesce(?, rater) ORDER BY time, battle, swapped"
        rows = self._read(f"SELECT battle, rater, winner, kind, swapped, time FROM votes {chosen}", (kind, rater))
        return [Vote(*row[:4], bool(row[4]), row[5]) for row in rows]

    def add(
        self, contestants: Iterable[Contestant], battles: Iterable[Battle], votes: Iterable[Vote]
    ) -> tuple[int, int]:
        """Add what another store or file holds, all of it or nothing; what is here already is not counted twice.

        Returns:
            The numbers of new battles and new votes.

        Raises:
            Rejected: a human vote on a battle that is another voter's here, or the id of a battle of other models or
                conversations.
        """
        battles = list(battles)
        tables = {"contestants": 2, "battles": 11, "votes": 6}  # and their columns
        rows = (((each.fingerprint, each.name) for each in contestants), map(_row, battles), map(_vote_row, votes))
        added = []
        with self._one_at_a_time, one_line_errors(self.path):
            try:
                with self._connection as transaction:
                    for (table, columns), values in zip(tables.items(), rows, strict=True):
                        before = transaction.total_changes
                        places = ", ".join("?" * columns)
                        transaction.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({places})", values)
                        added.append(transaction.total_changes - before)
                        if table == "battles":
                            self._check_identity(battles)
            except sqlite3.IntegrityError as error:
                raise Rejected(_reason(error)) from None
        return added[1], added[2]

    def _check_identity(self, battles: Iterable[Battle]) -> None:
        """Reject battles under an id that belongs to another one here: their votes would be counted for that one."""
        for each in battles:
            here = self.battle(each.id)
            if any(getattr(here, name, None) != getattr(each, name) for name in IDENTITY):
                raise Rejected(f"the battle {each.id} has other models or conversations here")

    def _read(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._one_at_a_time, one_line_errors(self.path):
            return self._connection.execute(statement, values).fetchall()

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._one_at_a_time, one_line_errors(self.path):
            try:
                with self._connection:
                    changed = self._connection.execute(statement, values).rowcount
            except sqlite3.IntegrityError as error:
                raise Rejected(_reason(error)) from None
        if statement.startswith("UPDATE") and not changed:
            raise Rejected("there is no such battle")


@contextlib.contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Raise SQLite's failures as UserError. A full disk passes as OSError, and broken rules of the schema pass too."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.OperationalError as error:
        if "is full" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise UserError(f"{path}: cannot be used ({one_line(error)}); check its permissions and other users") from None
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path}: not a store, or damaged ({one_line(error)}); restore it from a copy") from None


def is_store(path: Path) -> bool:
    """Whether a file is an SQLite file, by its first bytes."""
    with path.open("rb") as stream:
        return stream.read(len(SQLITE_HEADER)) == SQLITE_HEADER


def _hold(path: Path) -> FileLock:
    """A lock that the system releases when this process ends, however it ends."""
    held = FileLock(path.with_name(f"{path.name}.lock"), timeout=0, thread_local=False)
    try:
        held.acquire()
    except Timeout:
        raise UserError(f"{path}: another scratch arena writes to this store; stop it, or use another store") from None
    return held


def _connect(path: Path, writes: bool) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?mode={'rwc' if writes else 'rw'}"
    connection = sqlite3.connect(address, uri=True, timeout=WAIT, check_same_thread=False)
    try:
        _check(path, connection, writes)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")  # a commit returns when the vote is on the disk
    except BaseException:
        connection.close()
        raise
    return connection


def _check(path: Path, connection: sqlite3.Connection, writes: bool) -> None:
    """Check that a file is a whole store of this version. An empty one becomes a store if `writes`."""
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master")
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    if not tables and writes:
        connection.execute("PRAGMA journal_mode = WAL")
        marks = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
        salt = f"INSERT INTO secret VALUES ('{secrets.token_hex(16)}');"
        connection.executescript(f"BEGIN; {marks} {SCHEMA} {salt} COMMIT;")
        return
    if application != APPLICATION:
        raise UserError(f"{path}: not a store of scratch arena; give the SQLite file that it wrote")
    if version > VERSION:
        raise UserError(f"{path}: version {version} of the store, newer than {VERSION}; update scratch")
    ((state,), *_) = connection.execute("PRAGMA quick_check(1)")
    if state != "ok":
        raise sqlite3.DatabaseError(state)


def _reason(error: sqlite3.IntegrityError) -> str:
    text = str(error)
    if text.startswith("UNIQUE"):
        return "this battle has this vote already" if "votes" in text else "there is such a battle already"
    return "there is no such battle or model" if text.startswith("FOREIGN KEY") else text


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _row(battle: Battle) -> tuple[Any, ...]:
    conversations = (_json(battle.conversation_a), _json(battle.conversation_b), _json(battle.sampling))
    sides = (battle.model_a, battle.model_b, battle.voter)
    return (battle.id, battle.time, *sides, *conversations, battle.seed_a, battle.seed_b, battle.leaked)


def _vote_row(vote: Vote) -> tuple[Any, ...]:
    return (vote.battle, vote.rater, vote.kind, vote.swapped, vote.winner, vote.time)
