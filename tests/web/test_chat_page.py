"""The chat page in a real browser."""

import json

import pytest
from browser import browser, serving, wait_for
from chat_pages import application, endless_model

pytestmark = pytest.mark.slow
ENTER = "\ue007"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return endless_model(tmp_path_factory.mktemp("place"))


def answers(page):
    return [node.text for node in page.find_elements("css selector", ".message.assistant > .text")]


def finished(page):
    return page.find_element("id", "send").is_enabled()


def send(page, text):
    wait_for(lambda: page.find_element("id", "model").text == "tiny")
    page.find_element("id", "text").send_keys(text + ENTER)


def test_a_conversation_in_a_browser(model, tmp_path):
    file = tmp_path / "talks.jsonl"
    with application(model, file) as app, serving(app) as address, browser() as page:
        page.get(f"{address}/#max_tokens=12&seed=3")
        send(page, "Hello")
        wait_for(lambda: finished(page) and answers(page))
        first = answers(page)[0]
        assert len(page.find_elements("css selector", ".token")) == 12

        page.execute_script("document.querySelector('.token').click()")  # as a finger does
        rows = page.find_elements("css selector", "#probabilities tr")
        shares = [float(row.text.split("%")[0].split()[-1]) for row in rows]
        assert 5 <= len(rows) <= 6 and sum(shares) <= 100.5
        assert len(page.find_elements("css selector", "#probabilities tr.chosen")) == 1

        page.find_element("xpath", "//button[text()='Retry']").click()  # the same seed
        wait_for(lambda: finished(page) and answers(page) == [first])

        page.find_element("xpath", "//button[text()='Edit']").click()
        field = wait_for(lambda: page.find_element("css selector", "[aria-label='Edited message']"))
        field.clear()
        field.send_keys("Goodbye" + ENTER)
        wait_for(lambda: finished(page) and "Goodbye" in page.find_element("id", "messages").text)
        assert "Hello" not in page.find_element("id", "messages").text
        wait_for(lambda: page.find_element("id", "earlier").is_displayed())
        (record,) = [json.loads(line) for line in file.read_text().splitlines()]
        assert [message["role"] for message in record["messages"]] == ["user", "assistant"]
        assert record["messages"][0]["content"] == "Goodbye"

        page.refresh()  # settings are in the address line, conversations in the file
        wait_for(lambda: page.find_element("id", "earlier").is_displayed())
        assert page.find_element("id", "max_tokens").get_attribute("value") == "12"
        page.find_element("id", "earlier").click()
        page.find_element("css selector", "#conversations button").click()
        wait_for(lambda: "Goodbye" in page.find_element("id", "messages").text)
        assert not [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]


def test_an_answer_can_be_stopped(model, tmp_path):
    with application(model, tmp_path / "talks.jsonl") as app, serving(app) as address, browser() as page:
        page.get(f"{address}/#max_tokens=100000")
        send(page, "Hello")
        wait_for(lambda: len(page.find_elements("css selector", ".token")) > 3)
        page.find_element("id", "stop").click()
        wait_for(lambda: finished(page))
        assert "Stopped." in page.find_element("id", "messages").text
        send(page, "Again")  # the engine is free
        wait_for(lambda: len(answers(page)) == 2 and answers(page)[1])


def test_a_base_model_continues_a_text(model, tmp_path):
    with application(model, tmp_path / "talks.jsonl", chats=False) as app, serving(app) as address, browser() as page:
        page.get(f"{address}/#max_tokens=5")
        send(page, "Once upon")
        wait_for(lambda: finished(page) and answers(page))
        assert len(page.find_elements("css selector", ".token")) == 5
        page.execute_script("document.querySelector('.token').click()")
        assert len(page.find_elements("css selector", "#probabilities tr")) >= 5
    assert not (tmp_path / "talks.jsonl").exists()
