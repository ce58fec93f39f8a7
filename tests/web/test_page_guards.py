"""Requests from elsewhere: each attack is rejected with the guard, and succeeds without it."""

import re

import pytest
from puppets import Arena
from starlette.testclient import TestClient

from training.serving.origins import is_local
from training.web import guards
from training.web.guards import Guard
from training.web.pages import STATIC


def statuses(send, base_url="http://localhost", token=None, **options):
    """Status of an attack's request with the guard, and without."""
    arena = Arena()
    found = []
    for app in (Guard(arena.app, token), arena.app):
        with TestClient(app, base_url=base_url, **options) as client:
            found.append(send(client).status_code)
    return found


ATTACKS = {
    "a page whose name resolves to this computer": (
        403, lambda client: client.get("/", headers={"Host": "evil.example"}),
    ),
    "no host at all": (403, lambda client: client.get("/", headers={"Host": ""})),
    "a page of another origin": (
        403, lambda client: client.post("/api/battles", json={}, headers={"Origin": "http://evil.example"}),
    ),
    "a page of another port": (
        403, lambda client: client.post("/api/battles", json={}, headers={"Origin": "http://localhost:99"}),
    ),
    "a sandboxed page": (403, lambda client: client.post("/api/battles", json={}, headers={"Origin": "null"})),
    "a form": (415, lambda client: client.post("/api/battles", content="{}", headers={"Content-Type": "text/plain"})),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_requests_from_elsewhere(attack):
    status, send = ATTACKS[attack]
    assert statuses(send) == [status, 200]


def test_a_long_body_is_rejected(monkeypatch):
    monkeypatch.setattr(guards, "LARGEST_BODY", 1000)
    send = lambda client: client.post("/api/battles", json={"x": "y" * 2000})  # noqa: E731
    assert statuses(send) == [413, 200]


def test_a_long_body_of_unknown_length_is_cut_off(monkeypatch):
    monkeypatch.setattr(guards, "LARGEST_BODY", 1000)
    arena = Arena()

    def pieces():
        yield b'{"x": "'
        for _ in range(50):
            yield b"y" * 100
        yield b'"}'

    with TestClient(Guard(arena.app), base_url="http://localhost", raise_server_exceptions=False) as client:
        name = client.post("/api/battles", json={}).json()["id"]
        headers = {"Content-Type": "application/json"}
        answer = client.post(f"/api/battles/{name}/turns", content=pieces(), headers=headers)
    assert answer.status_code >= 400 and not arena.battles.open[name].turns


def test_the_same_origin_and_programs_are_served():
    with TestClient(Guard(Arena().app), base_url="http://localhost:8000") as client:
        assert client.get("/").status_code == 200
        assert client.post("/api/battles", json={}).status_code == 200
        origin = {"Origin": "http://localhost:8000"}
        assert client.post("/api/battles", json={}, headers=origin).status_code == 200


def test_a_token_is_needed_where_others_reach_the_port():
    app = Guard(Arena().app, "secret")
    with TestClient(app, base_url="http://192.168.1.5:8000") as client:
        assert client.get("/").status_code == 401
        assert client.get("/?token=wrong").status_code == 401
        assert client.get("/?token=sécret").status_code == 401
        assert client.get("/", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/", headers={"Authorization": "Bearer secret"}).status_code == 200
        assert client.get("/?token=secret", follow_redirects=False).headers["location"] == "/"
        assert client.get("/").status_code == 200  # by its cookie
        assert client.post("/api/battles", json={}).status_code == 200
        assert client.post("/api/battles", json={}, headers={"Origin": "http://evil.example"}).status_code == 403


def test_cookies_of_other_programs_on_this_computer():
    app = Guard(Arena().app, "secret")
    with TestClient(app, base_url="http://192.168.1.5:8000") as client:
        assert client.get("/", headers={"Cookie": 'layout={"a": [1, 2]}; token=secret'}).status_code == 200
        assert client.get("/", headers={"Cookie": 'layout={"a": [1, 2]}; token=wrong'}).status_code == 401


def test_no_page_loads_anything_from_elsewhere():
    with TestClient(Guard(Arena().app), base_url="http://localhost") as client:
        policy = client.get("/").headers["content-security-policy"]
        refused = client.get("/", headers={"Host": "evil.example"}).headers["content-security-policy"]
    assert policy == refused and "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


def test_pages_are_small_and_name_no_other_host():
    files = list(STATIC.iterdir())
    assert sum(file.stat().st_size for file in files) < 60_000
    for file in files:
        hosts = set(re.findall(r"https?://[\w.-]+|[\"'(]//\w+", file.read_text()))
        assert hosts <= {"http://www.w3.org"}, file.name  # the name of SVG, which is not loaded


@pytest.mark.parametrize(
    ("host", "local"),
    [("localhost", True), ("127.0.0.1", True), ("127.5.5.5", True), ("[::1]", True), ("LOCALHOST.", True)]
    + [("0.0.0.0", False), ("192.168.1.5", False), ("localhost.evil.example", False), ("", False)],
)
def test_addresses_of_this_computer(host, local):
    assert is_local(host) == local
