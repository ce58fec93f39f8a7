"""The store: what the schema rejects, what survives a kill, and files that are not a store."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from arenas import MODELS, battle, conversation, make_store
from filelock import FileLock
from messages import refused

from training.arena.store import Contestant, Rejected, Store, Vote


@pytest.fixture
def store(tmp_path):
    with make_store(tmp_path / "arena.sqlite") as store:
        yield store


def test_what_is_written_is_read(store):
    first = battle(sampling={"temperature": 0.7}, seed_a=3, seed_b=4, leaked=True)
    store.begin(first)
    store.vote(Vote(first.id, "anna", "both_bad", time=5.0))
    assert store.battle(first.id) == first and list(store.battles()) == [first]
    assert store.votes() == [Vote(first.id, "anna", "both_bad", time=5.0)]
    assert store.contestants() == MODELS
    store.add_contestant(Contestant("renamed", "sha:old"))
    assert store.contestants() == MODELS


def test_a_battle_grows_until_the_vote(store):
    first = battle()
    store.begin(first)
    longer = replace(first, conversation_a=conversation("Why?", "So.", "And?", "So."), leaked=True)
    store.update(longer)
    assert store.battle(first.id) == longer
    store.vote(Vote(first.id, "anna", "tie"))
    with pytest.raises(Rejected, match="closed"):
        store.update(first)
    with pytest.raises(Rejected, match="no such battle"):
        store.update(battle())
    with pytest.raises(Rejected):
        store.begin(first)
    with pytest.raises(Rejected):
        store.begin(battle(a="unknown"))
    with pytest.raises(Rejected):
        store.begin(battle(a="new", b="new"))


def test_nobody_votes_twice_or_on_another_battle(store):
    first = battle()
    store.begin(first)
    with pytest.raises(Rejected, match="another voter"):
        store.vote(Vote(first.id, "berta", "model_a"))
    with pytest.raises(Rejected):
        store.vote(Vote("nowhere", "anna", "model_a"))
    with pytest.raises(Rejected):
        store.vote(Vote(first.id, "anna", "model_c"))
    store.vote(Vote(first.id, "anna", "model_a"))
    for again in (Vote(first.id, "anna", "model_b"), Vote(first.id, "anna", "model_b", swapped=True)):
        with pytest.raises(Rejected, match="already"):
            store.vote(again)
    assert [vote.winner for vote in store.votes()] == ["model_a"]


def test_machines_vote_on_the_same_battle_in_both_orders(store):
    first = battle()
    store.begin(first)
    store.vote(Vote(first.id, "anna", "model_a"))
    for swapped in (False, True):
        store.vote(Vote(first.id, "longest", "model_b", "rule", swapped))
    with pytest.raises(Rejected, match="already"):
        store.vote(Vote(first.id, "longest", "model_a", "rule"))
    assert len(store.votes()) == 3


@pytest.mark.parametrize("change", [{"model_b": "sha:other"}, {"conversation_a": conversation("How?", "So.")}])
def test_an_id_belongs_to_one_battle(store, change):
    first = battle()
    store.begin(first)
    other, fresh = replace(first, **change), battle()
    for kind in ("human", "rule"):
        with pytest.raises(Rejected, match=first.id):
            store.add(MODELS, [fresh, other], [Vote(first.id, "anna", "model_b", kind)])
    assert not store.votes() and list(store.battles()) == [first]
    vote = Vote(first.id, "anna", "model_b")
    assert store.add(MODELS, [first, fresh], [vote]) == (1, 1) and store.add(MODELS, [first], [vote]) == (0, 0)


def test_an_empty_store_is_deleted_before_another_process_may_write(tmp_path, monkeypatch):
    path, release, left = tmp_path / "arena.sqlite", FileLock.release, []

    def watched(lock, *arguments, **options):
        left.append(sorted(file.name for file in tmp_path.iterdir()))
        release(lock, *arguments, **options)

    monkeypatch.setattr(FileLock, "release", watched)
    store = Store.open(path, writes=True)
    store.close()
    store.close()
    assert left[0] == [] and not path.exists()


def test_sql_from_outside_cannot_change_a_vote(store):
    first = battle()
    store.begin(first)
    store.vote(Vote(first.id, "anna", "model_a"))
    with sqlite3.connect(store.path) as other, pytest.raises(sqlite3.IntegrityError, match="cannot be changed"):
        other.execute("UPDATE votes SET winner = 'model_b'")


def test_threads_share_a_store(store):
    battles = [battle(voter=f"voter {n}") for n in range(40)]
    counted = []

    def work(each):
        store.begin(each)
        for _ in range(2):
            try:
                store.vote(Vote(each.id, each.voter, "tie"))
                counted.append(each.id)
            except Rejected:
                pass

    threads = [threading.Thread(target=work, args=(each,)) for each in battles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counted) == sorted(vote.battle for vote in store.votes()) == sorted(each.id for each in battles)


def test_voters_are_salted(store, tmp_path):
    assert store.salted("anna") == store.salted("anna") != store.salted("berta")
    with make_store(tmp_path / "second.sqlite") as second:
        assert second.salted("anna") != store.salted("anna")
    assert b"anna" not in store.path.read_bytes()


KILLED = """
import sys
from pathlib import Path
from arenas import battle, make_store
from training.arena.store import Vote

store = make_store(Path(sys.argv[1]))
while True:
    each = battle()
    store.begin(each)
    store.vote(Vote(each.id, "anna", "tie"))
    print(each.id, flush=True)
"""


def test_a_confirmed_vote_survives_a_kill(tmp_path):
    path = tmp_path / "arena.sqlite"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    confirmed = [child.stdout.readline().strip() for _ in range(5)]
    with refused(None, path, "another scratch arena"):
        Store.open(path, writes=True)
    with Store.open(path) as reader:  # which does not disturb
        assert len(reader.votes()) >= 5
    child.send_signal(signal.SIGKILL)
    confirmed += child.stdout.read().split()
    child.wait()
    with Store.open(path, writes=True) as store:
        votes = [vote.battle for vote in store.votes()]
        assert set(confirmed) <= set(votes) and len(votes) == len(set(votes)) <= len(confirmed) + 1


def test_files_that_are_not_a_store(tmp_path):
    path = tmp_path / "arena.sqlite"
    with refused(None, path, "no such store"):
        Store.open(path)
    with refused(None, "does not exist"):
        Store.open(tmp_path / "nowhere" / "arena.sqlite", writes=True)
    path.write_text("words, and more words than a header has, so that SQLite reads them\n" * 20)
    with refused(None, path, "damaged"):
        Store.open(path)
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE things (name TEXT)")
    other.close()
    for writes in (False, True):
        with refused(None, path, "not a store"):
            Store.open(path, writes)


def test_newer_and_damaged_stores(tmp_path):
    path = tmp_path / "arena.sqlite"
    make_store(path, *((battle(prompt="Why? " * 200), "tie") for _ in range(30))).close()
    whole = path.read_bytes()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with refused(None, path, "version 99", "update scratch"):
        Store.open(path)
    path.write_bytes(whole[: len(whole) // 2])
    with refused(None, path, "damaged"):
        Store.open(path)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + b"\xff" * 8192 + whole[middle + 8192 :])
    with refused(None, path, "damaged"):
        Store.open(path)
