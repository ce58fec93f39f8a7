"""Battles: a whole one, contestants that fail, and attacks on names, votes and other people's battles."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from puppets import Arena, Puppet, play, post
from starlette.testclient import TestClient

from training.arena import contestants
from training.web import battles as battles_module
from training.web import pages
from training.web.battles import Battle

LOCAL = "http://localhost"


def client_of(arena):
    return TestClient(arena.app, base_url=LOCAL)


@pytest.fixture
def arena():
    return Arena()


def test_a_battle_from_prompt_to_names(arena):
    with client_of(arena) as client:
        name, received = play(client)
        last = json.loads(received[2].text.strip().split("\n\n")[-1].removeprefix("data: "))
        assert last["turns"][0]["done"] and {last["turns"][0][side] for side in "ab"} == {"four", "five"}
        voted = post(client, f"/api/battles/{name}/vote", {"vote": "a"}).json()
    (kept,) = arena.kept
    assert voted["state"] == "voted" and set(voted["names"].values()) == {"zebra-model", "yak-model"}
    answers = {"zebra-model": "four", "yak-model": "five"}
    assert all(answers[voted["names"][side]] == last["turns"][0][side] for side in "ab")
    assert (kept.vote, kept.leaked) == ("a", False)


def test_further_turns_carry_each_sides_own_conversation():
    first, second = Puppet("zebra-model", "four"), Puppet("yak-model", "five")
    arena = Arena(first, second)
    with client_of(arena) as client:
        name, _ = play(client)
        post(client, f"/api/battles/{name}/turns", {"prompt": "Sure?"})
        client.get(f"/api/battles/{name}/events")
    messages, settings = second.asked[1]
    assert [message["content"] for message in messages] == ["2 + 2?", "five", "Sure?"]
    assert settings["seed"] == first.asked[1][1]["seed"] != second.asked[0][1]["seed"]


FAILURES = {
    "raises": Puppet("yak-model", "fi", fails=RuntimeError("yak-model is out of memory")),
    "says nothing": Puppet("yak-model"),
    "says blanks": Puppet("yak-model", " \n"),
    "has no end": Puppet("yak-model", *["x" * 1000] * 50),
    "hangs": Puppet("yak-model", "fi", "ve", delay=30),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_contestant_that_fails_costs_one_battle(monkeypatch, failure):
    monkeypatch.setattr(contestants, "MOST_SECONDS", 0.3)
    arena = Arena(Puppet("zebra-model", "four"), FAILURES[failure])
    with client_of(arena) as client:
        name, received = play(client)
        battle = client.get(f"/api/battles/{name}").json()
        assert battle["state"] == "void" and battle["message"] == battles_module.FAILED
        assert "yak-model" not in "".join(response.text for response in received)
        assert post(client, f"/api/battles/{name}/vote", {"vote": "a"}).status_code == 409
        assert post(client, "/api/battles").status_code == 200
    assert not arena.kept and arena.reports[0].startswith("yak-model: ")


def test_an_answer_that_says_a_name_is_kept_but_marked():
    arena = Arena(Puppet("zebra-model", "I am Zebra-", "Model."), Puppet("yak-model", "five"))
    with client_of(arena) as client:
        name, _ = play(client)
        voted = post(client, f"/api/battles/{name}/vote", {"vote": "b"}).json()
    assert arena.kept[0].leaked and "does not count" in voted["message"]


def test_a_name_within_a_word_is_not_a_name():
    arena = Arena(Puppet("sft", "four"), Puppet("base", "based on softness, baseline"))
    with client_of(arena) as client:
        name, _ = play(client)
        post(client, f"/api/battles/{name}/vote", {"vote": "b"})
    assert not arena.kept[0].leaked


def test_a_vote_that_cannot_be_kept_is_not_confirmed(arena):
    def fail(battle):
        raise OSError("disk full")

    arena.battles.keep = fail
    with client_of(arena) as client:
        name, _ = play(client)
        answer = post(client, f"/api/battles/{name}/vote", {"vote": "a"})
        assert answer.status_code == 507 and "zebra" not in answer.text and "disk full" in arena.reports[0]
        battle = client.get(f"/api/battles/{name}").json()
        assert battle["state"] == "open" and "names" not in battle and "vote" not in battle
        arena.battles.keep = arena.keep
        assert post(client, f"/api/battles/{name}/vote", {"vote": "a"}).status_code == 200


# Attacks. Each is tried with its guard, and succeeds without it.


def names_in(received):
    """Names of contestants in anything that the page received."""
    texts = [response.text + str(response.headers) for response in received]
    # Whole, for three letters also occur in random ids.
    return {name for name in ("zebra-model", "yak-model") if any(name in text.lower() for text in texts)}


@pytest.mark.parametrize("guarded", [True, False])
def test_no_name_before_the_vote(arena, monkeypatch, guarded):
    if not guarded:
        public = Battle.public
        named = lambda battle: public(battle) | {"names": {side: one.name for side, one in battle.sides.items()}}  # noqa: E731
        monkeypatch.setattr(Battle, "public", named)
    with client_of(arena) as client:
        _, received = play(client)
    assert names_in(received) == (set() if guarded else {"zebra-model", "yak-model"})


@pytest.mark.parametrize("guarded", [True, False])
def test_sides_cannot_be_predicted(arena, monkeypatch, guarded):
    arena.battles.draw = lambda waiting: arena.polls.contestants
    if not guarded:
        monkeypatch.setattr(battles_module.secrets.SystemRandom, "shuffle", lambda self, pair: None)
    first = sum(arena.battles.begin(str(number)).sides["a"].name == "zebra-model" for number in range(400))
    assert (140 < first < 260) == guarded  # six standard deviations


@pytest.mark.parametrize("vote", ["c", "", None, ["a"], {"a": 1}, 1, "zebra-model"])
def test_only_votes_are_votes(arena, vote):
    with client_of(arena) as client:
        name, _ = play(client)
        assert post(client, f"/api/battles/{name}/vote", {"vote": vote}).status_code == 400
    assert not arena.kept


def test_nobody_votes_twice(arena):
    with client_of(arena) as client:
        name, _ = play(client)
        first = post(client, f"/api/battles/{name}/vote", {"vote": "a"})
        second = post(client, f"/api/battles/{name}/vote", {"vote": "b"})
        assert client.get(f"/api/battles/{name}").json()["vote"] == "a"
    assert (first.status_code, second.status_code, len(arena.kept)) == (200, 409, 1)


@pytest.mark.parametrize("prompt", [None, "Hi"])
def test_no_vote_before_the_answers_are_seen(arena, prompt):
    with client_of(arena) as client:
        name = post(client, "/api/battles").json()["id"]
        if prompt:
            post(client, f"/api/battles/{name}/turns", {"prompt": prompt})
        assert post(client, f"/api/battles/{name}/vote", {"vote": "a"}).status_code == 409
    assert not arena.kept


@pytest.mark.parametrize("guarded", [True, False])
def test_another_voters_battle_is_neither_read_nor_voted_on(arena, monkeypatch, guarded):
    if not guarded:
        monkeypatch.setattr(arena.battles, "find", lambda name, voter: arena.battles.open[name])
    with client_of(arena) as owner:
        name, _ = play(owner)
        owner.cookies.clear()  # another browser
        paths = [f"/api/battles/{name}", f"/api/battles/{name}/events"]
        statuses = [owner.get(path).status_code for path in paths]
        for action, body in (("vote", {"vote": "a"}), ("turns", {"prompt": "x"}), ("stop", {})):
            statuses.append(post(owner, f"/api/battles/{name}/{action}", body).status_code)
    assert (set(statuses) == {404}) == guarded and bool(arena.kept) != guarded


def test_a_forged_cookie_is_another_voter(arena):
    with client_of(arena) as client:
        name, _ = play(client)
        client.cookies.clear()
        client.cookies.set(pages.VISITOR, "0" * 43)
        assert client.get(f"/api/battles/{name}").status_code == 404


def test_sides_and_names_in_a_request_are_ignored(arena):
    with client_of(arena) as client:
        name, _ = play(client)
        sides = {side: one.name for side, one in arena.battles.open[name].sides.items()}
        forged = {"vote": "a", "sides": {"a": "yak-model"}, "names": {"a": "yak-model"}, "voter": "me", "leaked": True}
        names = post(client, f"/api/battles/{name}/vote", forged).json()["names"]
    assert names == sides and not arena.kept[0].leaked


@pytest.mark.parametrize("prompt", ["x" * 8_001, " \n", {}, None], ids=["long", "blank", "no text", "none"])
def test_prompts_are_limited(arena, prompt):
    body = {"prompt": prompt}
    with client_of(arena) as client:
        name = post(client, "/api/battles").json()["id"]
        assert post(client, f"/api/battles/{name}/turns", body).status_code == 400


def test_turns_are_limited(arena, monkeypatch):
    monkeypatch.setattr(battles_module, "MOST_TURNS", 2)
    with client_of(arena) as client:
        name, _ = play(client)
        assert post(client, f"/api/battles/{name}/turns", {"prompt": "second"}).status_code == 200
        client.get(f"/api/battles/{name}/events")
        assert post(client, f"/api/battles/{name}/turns", {"prompt": "third"}).status_code == 409


def test_the_rate_is_limited(arena, monkeypatch):
    monkeypatch.setattr(battles_module, "MOST_A_MINUTE", 3)
    with client_of(arena) as client:
        for _ in range(3):
            play(client)
        name = post(client, "/api/battles").json()["id"]
        assert post(client, f"/api/battles/{name}/turns", {"prompt": "fourth"}).status_code == 429


def test_one_voter_has_few_battles_in_memory(arena):
    for _ in range(20):
        arena.battles.begin("me")
    assert len(arena.battles.open) == battles_module.MOST_OF_A_VOTER


def test_memory_is_bounded_and_battles_in_use_stay(arena, monkeypatch):
    monkeypatch.setattr(battles_module, "MOST_OPEN", 5)
    used = arena.battles.begin("first")
    used.turns.append(battles_module.Turn("Hi"))
    for number in range(20):
        arena.battles.begin(str(number))
    assert len(arena.battles.open) == 5 and used.id in arena.battles.open
    for battle in arena.battles.open.values():
        battle.turns.append(battles_module.Turn("Hi"))
    with pytest.raises(battles_module.Rejected):
        arena.battles.begin("late")
    for answer in used.turns[-1].pair.answers.values():  # complete, but its voter has not come back
        answer.ended = True
    used.touched -= battles_module.IDLE_SECONDS + 1
    arena.battles.begin("late")
    assert used.id not in arena.battles.open


def test_names_are_not_told_while_the_vote_is_written(arena):
    """Another request of the voter during the wait for the disk, and a second vote."""
    writing, written = threading.Event(), threading.Event()

    def slowly(battle):
        writing.set()
        assert written.wait(10)
        arena.keep(battle)

    arena.battles.keep = slowly
    with client_of(arena) as client:
        name, _ = play(client)
        with ThreadPoolExecutor() as pool:
            vote = pool.submit(post, client, f"/api/battles/{name}/vote", {"vote": "a"})
            assert writing.wait(10)
            meanwhile = client.get(f"/api/battles/{name}").json()
            second = post(client, f"/api/battles/{name}/vote", {"vote": "b"})
            written.set()
            assert vote.result().status_code == 200
    assert meanwhile["state"] == "open" and "names" not in meanwhile and second.status_code == 409
    assert len(arena.store.votes()) == 1


def stopped(client, arena, enough):
    """A battle that is stopped as soon as `enough` characters are shown."""
    name = post(client, "/api/battles").json()["id"]
    post(client, f"/api/battles/{name}/turns", {"prompt": "Hi"})
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(client.get, f"/api/battles/{name}/events")
        pair = arena.battles.open[name].turns[0].pair
        while pair.shown < enough:
            time.sleep(0.01)
        battle = post(client, f"/api/battles/{name}/stop").json()
        reading.result()
    return name, battle


def test_stop_ends_both_answers_at_the_same_length():
    """What a faster model has written beyond what is shown would tell that it is faster."""
    fast, slow = Puppet("zebra-model", "x" * 5_000), Puppet("yak-model", *["y"] * 5_000, delay=0.01)
    arena = Arena(fast, slow)
    with client_of(arena) as client:
        name, battle = stopped(client, arena, 5)
        assert battle["turns"][0]["done"] and len(battle["turns"][0]["a"]) == len(battle["turns"][0]["b"]) < 1_000
        assert post(client, f"/api/battles/{name}/vote", {"vote": "a"}).status_code == 200


def test_a_stopped_answer_that_says_a_name_is_marked():
    says = Puppet("zebra-model", "I am zebra-model. ", *["more "] * 500, delay=0.01)
    arena = Arena(says, Puppet("yak-model", *["I am nobody. "] * 500, delay=0.01))
    with client_of(arena) as client:
        name, _ = stopped(client, arena, 20)
        post(client, f"/api/battles/{name}/vote", {"vote": "b"})
    assert arena.kept[0].leaked


def test_answers_that_were_stopped_before_they_began_do_not_count():
    arena = Arena(Puppet("zebra-model", "late", delay=5), Puppet("yak-model", "late", delay=5))
    with client_of(arena) as client:
        _, battle = stopped(client, arena, 0)
    assert battle["state"] == "void"


def test_a_battle_that_makes_room_ends_its_stream():
    arena = Arena(Puppet("zebra-model", *["x"] * 500, delay=0.1), Puppet("yak-model", "five"))
    with client_of(arena) as client, ThreadPoolExecutor() as pool:
        name = post(client, "/api/battles").json()["id"]
        post(client, f"/api/battles/{name}/turns", {"prompt": "Hi"})
        reading = pool.submit(client.get, f"/api/battles/{name}/events")
        for _ in range(battles_module.MOST_OF_A_VOTER):
            post(client, "/api/battles")
        assert "newer battle" in reading.result(timeout=20).text


def test_events_before_the_first_prompt_are_refused(arena):
    with client_of(arena) as client:
        name = post(client, "/api/battles").json()["id"]
        assert client.get(f"/api/battles/{name}/events").status_code == 409
