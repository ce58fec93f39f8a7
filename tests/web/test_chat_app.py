"""What the chat page's server tells and keeps."""

import pytest
from chat_pages import application, endless_model
from starlette.testclient import TestClient

from training.common.errors import UserError
from training.corpus.sources.records import read_records
from training.web import conversations as conversations_module
from training.web.conversations import ConversationFile

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho ☃"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return endless_model(tmp_path_factory.mktemp("place"))


@pytest.fixture
def client(model, tmp_path):
    with application(model, tmp_path / "talks.jsonl") as app, TestClient(app, base_url="http://localhost") as client:
        yield client


def keep(client, name, messages=TALK):
    return client.post("/api/conversations", json={"id": name, "messages": messages})


def test_conversations_are_kept_as_records_of_messages(client, tmp_path):
    for name in ("one", "two", "one"):
        assert keep(client, name).status_code == 200
    records = [record for _, record in read_records(tmp_path / "talks.jsonl")]
    assert [record["id"] for record in records] == ["two", "one"] and records[0]["messages"] == TALK
    assert [entry["id"] for entry in client.get("/api/conversations").json()["conversations"]] == ["one", "two"]
    assert client.get("/api/conversations/one").json()["messages"] == TALK
    assert client.post("/api/conversations/one/delete", json={}).status_code == 200
    assert client.get("/api/conversations/one").status_code == 404
    assert [record["id"] for _, record in read_records(tmp_path / "talks.jsonl")] == ["two"]


@pytest.mark.parametrize("messages", [None, [], "x", [{"role": "king", "content": "x"}], [{"role": "user"}]])
def test_what_is_not_a_conversation_is_not_kept(client, tmp_path, messages):
    assert keep(client, "one", messages).status_code == 400
    assert not (tmp_path / "talks.jsonl").exists()


def test_conversations_are_limited(client, monkeypatch):
    monkeypatch.setattr(conversations_module, "MOST", 2)
    assert [keep(client, name).status_code for name in ("a", "b", "c", "a")] == [200, 200, 400, 200]
    assert keep(client, "x" * 101).status_code == 400


@pytest.mark.parametrize("content", ['{"text": "not a conversation"}\n', "no JSON\n", '{"messages": []}\n'])
def test_a_file_of_something_else_is_left_alone(tmp_path, content):
    (tmp_path / "talks.jsonl").write_text(content)
    with pytest.raises(UserError, match="talks.jsonl"):
        ConversationFile(tmp_path / "talks.jsonl").titles()
    assert (tmp_path / "talks.jsonl").read_text() == content


def test_the_page_learns_of_model_and_settings(client):
    about = client.get("/api/page").json()
    assert about["model"] == "tiny" and about["chats"] and about["template"]
    assert client.get("/").status_code == 200
