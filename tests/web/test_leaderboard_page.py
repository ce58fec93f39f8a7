"""The leaderboard page: its data, and the page itself in a real browser."""

import csv

import pytest
from browser import browser, serving, wait_for
from puppets import Arena, play, post
from starlette.testclient import TestClient

from training.web.guards import Guard


@pytest.fixture
def arena():
    """Six battles with votes for the left side."""
    arena = Arena()
    with TestClient(arena.app, base_url="http://localhost") as client:
        for number in range(6):
            name, _ = play(client, "What is 2 + 2?" if number else "Write a Python function.")
            post(client, f"/api/battles/{name}/vote", {"vote": "a"})
    return arena


def test_votes_are_in_the_leaderboard_at_once(arena):
    with TestClient(arena.app, base_url="http://localhost") as client:
        board = client.get("/api/leaderboard").json()
        rows = list(csv.DictReader(client.get("/api/leaderboard.csv").text.splitlines()))
        code = client.get("/api/leaderboard?topic=code").json()
    assert {row["name"] for row in board["rows"]} == {"zebra-model", "yak-model"} == {row["name"] for row in rows}
    assert (board["votes"], code["votes"]) == (6, 1) and board["remarks"]


@pytest.mark.parametrize("query", ["kind=king", "topic=cats", "min_words=x", "min_words=1&max_words=y"])
def test_filters_that_do_not_exist(arena, query):
    with TestClient(arena.app, base_url="http://localhost") as client:
        assert client.get(f"/api/leaderboard?{query}").status_code == 400


def test_no_votes_yet():
    with TestClient(Arena().app, base_url="http://localhost") as client:
        answer = client.get("/api/leaderboard")
    assert answer.status_code == 404 and "no votes" in answer.json()["error"]["message"]


@pytest.mark.slow
def test_the_page(arena):
    with serving(Guard(arena.app)) as address, browser() as page:
        page.get(f"{address}/leaderboard")
        wait_for(lambda: page.find_element("id", "board").is_displayed())
        assert len(page.find_elements("css selector", "#ratings tbody tr")) == 2
        assert len(page.find_elements("css selector", "#history polyline")) == 2
        assert "cannot tell yet" in page.find_element("id", "ratings").text
        page.find_element("css selector", "[name=topic] option[value=code]").click()
        wait_for(lambda: "votes: 1" in page.find_element("id", "remarks").text)
        page.refresh()  # filters are in the address line
        wait_for(lambda: "votes: 1" in page.find_element("id", "remarks").text)
        page.find_element("css selector", "[name=kind] option[value=rule]").click()
        wait_for(lambda: "no votes" in page.find_element("id", "error").text)
        severe = [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
        assert all("404" in message for message in severe)  # the request without votes
