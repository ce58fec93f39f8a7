"""The battle page in a real browser."""

import json

import pytest
from browser import browser, serving, wait_for
from puppets import Arena, Puppet

from training.web.guards import Guard

pytestmark = pytest.mark.slow
ENTER = "\ue007"
HOSTILE = (
    "## Title\n\n<script>document.title = 'run'</script> <img src=x onerror=\"document.title = 'run'\"> "
    "![picture](http://elsewhere.example/x.png) [link](javascript:document.title='run') **bold**\n\n"
    "```python\nx = '<b>'\n```\n"
)


def text(page):
    return page.find_element("tag name", "main").text


def ask(page, prompt):
    field = wait_for(lambda: page.find_element("id", "text"))
    wait_for(lambda: field.is_enabled())
    field.send_keys(prompt + ENTER)


def votable(page):
    return page.find_element("id", "votes").is_displayed()


@pytest.fixture
def slow():
    return Arena(Puppet("zebra-model", *"four and more ".split(" ") * 6, delay=0.1), Puppet("yak-model", "five"))


def test_a_battle_by_keyboard_alone():
    arena = Arena()
    with serving(Guard(arena.app)) as address, browser() as page:
        page.get(address)
        wait_for(lambda: page.execute_script("return sessionStorage.length"))
        page.switch_to.active_element.send_keys("2 + 2?" + ENTER)  # the field has the focus
        wait_for(lambda: votable(page))
        assert "zebra" not in page.page_source and "yak" not in page.page_source
        page.switch_to.active_element.send_keys("b")
        wait_for(lambda: "zebra-model" in text(page) and "yak-model" in text(page))
        page.switch_to.active_element.send_keys("n")
        wait_for(lambda: "zebra" not in text(page) and page.switch_to.active_element.get_attribute("id") == "text")
    assert [battle.vote for battle in arena.kept] == ["b"]


def test_a_reload_in_the_middle_goes_on(slow):
    with serving(Guard(slow.app)) as address, browser() as page:
        page.get(address)
        ask(page, "Hi")
        wait_for(lambda: "four" in text(page))
        page.refresh()
        wait_for(lambda: votable(page))
        assert text(page).count("fourandmore" * 2) >= 1 and "Hi" in text(page)
        page.find_element("css selector", "[data-vote=tie]").click()
        wait_for(lambda: "zebra-model" in text(page))
        page.refresh()  # names and vote are still there, and no second vote is offered
        wait_for(lambda: "zebra-model" in text(page))
        assert not page.find_element("css selector", "[data-vote=a]").is_enabled()
    assert len(slow.kept) == 1


def test_two_browsers_at_once_have_battles_of_their_own(slow):
    with serving(Guard(slow.app)) as address, browser() as first, browser() as second:
        for page, prompt in ((first, "Hello"), (second, "Goodbye")):
            page.get(address)
            ask(page, prompt)
        for page, own, other in ((first, "Hello", "Goodbye"), (second, "Goodbye", "Hello")):
            wait_for(lambda page=page: votable(page))
            assert own in text(page) and other not in text(page)
            page.find_element("css selector", "[data-vote=a]").click()
            wait_for(lambda page=page: "zebra-model" in text(page))
    assert len({battle.voter for battle in slow.kept}) == 2


def test_markup_in_prompts_and_answers_is_text():
    arena = Arena(Puppet("zebra-model", HOSTILE), Puppet("yak-model", HOSTILE))
    with serving(Guard(arena.app)) as address, browser() as page:
        page.get(address)
        ask(page, "<img src=x onerror=\"document.title = 'run'\">")
        wait_for(lambda: votable(page))
        assert page.title == "scratch arena" and "<script>" in text(page)
        assert not page.find_elements("css selector", "main img, main script, main a[href^=javascript]")
        assert len(page.find_elements("css selector", "main pre code")) == 2
        assert not [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
        requests = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = [entry["params"]["request"]["url"] for entry in requests if entry["method"] == "Network.requestWillBeSent"]
    assert urls and all(url.startswith((address, "data:")) for url in urls)


def test_a_failing_contestant_is_told_and_a_new_battle_begins():
    arena = Arena(Puppet("zebra-model", "four"), Puppet("yak-model", fails=RuntimeError("yak")))
    with serving(Guard(arena.app)) as address, browser() as page:
        page.get(address)
        ask(page, "Hi")
        wait_for(lambda: "does not count" in text(page))
        assert "yak" not in page.page_source
        page.find_element("id", "new").click()
        wait_for(lambda: page.find_element("id", "text").is_enabled())


def test_a_server_that_is_gone_is_told():
    arena = Arena()
    with browser() as page:
        with serving(Guard(arena.app)) as address:
            page.get(address)
            wait_for(lambda: page.execute_script("return sessionStorage.length"))
        ask(page, "Hi")
        wait_for(lambda: "does not answer" in text(page))
        assert page.find_element("id", "text").get_attribute("value") == "Hi"


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_is_wider_than_the_screen(dark):
    long = Puppet("zebra-model", "word" * 100 + "\n\n```\n" + "x" * 300 + "\n```\n")
    arena = Arena(long, Puppet("yak-model", "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 3))
    with serving(Guard(arena.app)) as address, browser(360, 700, dark) as page:
        page.get(address)
        ask(page, "Hi")
        wait_for(lambda: votable(page))
        width = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        assert page.execute_script(width)
        tops = [node.location["y"] for node in page.find_elements("css selector", ".pair section")]
        assert tops[0] < tops[1]  # one below the other
        background = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background.strip("rgb()").split(", "))) < 200) == dark
