"""The browser page in Chromium: tokens equal to transformers', from a static host and from a file, and no other host.

Skipped where wllama's archives are not in the cache: `scratch export --to web` puts them there.
"""

import json

import pytest
import torch
from browser import browser, wait_for
from browser_runtime import serving_files
from tiny_stages import flags, write_model, write_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from training.browser_page.runtime import PACKAGES, cache_folder
from training.commands.export import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all((cache_folder() / package.archive).is_file() for package in PACKAGES),
        reason="wllama is not in the cache",
    ),
]
ENTER = "\ue007"
CONTEXT = 4096  # an answer of this length takes long enough to be stopped
PATIENCE = 120  # seconds: a browser compiles 10 MB of WebAssembly, on a machine that may be busy
WITHOUT_COMPAT = "delete WebAssembly.Suspending"  # what Safari lacks
WITHOUT_STORAGE = "delete StorageManager.prototype.getDirectory"  # as by http from another computer, or in WebKitGTK


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A chat model in a folder and a base model in one file. Neither ends an answer by itself."""
    place = tmp_path_factory.mktemp("page")
    write_tokenizer(place / "tokenizer")
    for name, stage, preset in (("chat", "sft", "llama"), ("base", "pretrain", "qwen3")):
        dials = {"max_position_embeddings": CONTEXT}
        folder = write_model(place / name, place / "tokenizer", stage, preset=preset, dials=dials)
        settings = GenerationConfig.from_pretrained(folder)
        settings.suppress_tokens = sorted({*(settings.suppress_tokens or ()), *range(8)})  # the special tokens
        settings.save_pretrained(folder)
        given = {"model": folder, "output_dir": place / f"{name}-page", "name": name, "to": "web"}
        main(flags(given | {"single_file": name == "base"}))
    return place


def greedy(folder, prompt, length):
    """The most likely text after a prompt: messages or a text. Half characters are left out, see `whole`."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    if isinstance(prompt, str):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
    else:
        ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt").input_ids
    options = {"do_sample": False, "max_new_tokens": length, "attention_mask": torch.ones_like(ids)}
    return whole(tokenizer.decode(model.generate(ids, **options)[0, ids.shape[1] :]))


def whole(text):
    """A text without its half characters: programs differ in how many signs they print for several in a row."""
    return text.replace("\ufffd", "")


def shown(page):
    """The answers so far."""
    script = "return [...document.querySelectorAll('.message.assistant > .text')].map((node) => node.textContent)"
    return page.execute_script(script)


def ask(page, text):
    """Send a message, and wait for the end of the answer."""
    page.find_element("id", "text").send_keys(text + ENTER)
    wait_for(lambda: page.find_element("id", "stop").is_displayed())
    wait_for(lambda: page.find_element("id", "send").is_enabled(), PATIENCE)
    assert not page.find_element("id", "error").text
    return shown(page)[-1]


def hosts(page):
    """Where the page sent requests to, except to itself."""
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return {url.split("/")[2] for url in urls if not url.startswith(("data:", "blob:", "file:"))}


def complaints(page):
    return [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]


def test_a_chat_from_a_static_host_on_a_phone(place):
    question = {"role": "user", "content": "Where is the cat?"}
    with serving_files(place / "chat-page") as (address, asked), browser(390, 800) as page:
        page.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WITHOUT_STORAGE})
        page.get(f"{address}/#temperature=0&max_tokens=24")
        first = ask(page, question["content"])
        assert whole(first) == greedy(place / "chat", [question], 24)
        turns = [question, {"role": "assistant", "content": first}, question]
        assert whole(ask(page, question["content"])) == greedy(place / "chat", turns, 24)
        assert "24 tokens, " in page.find_element("id", "messages").text
        assert page.execute_script("return document.documentElement.scrollWidth") <= 390

        page.execute_script("location.hash = 'temperature=0&max_tokens=2400'")
        page.find_element("id", "text").send_keys("Again" + ENTER)
        wait_for(lambda: len(shown(page)) == 3 and shown(page)[-1], PATIENCE)
        page.find_element("id", "stop").click()
        wait_for(lambda: page.find_element("id", "send").is_enabled(), PATIENCE)
        assert "Stopped." in page.find_element("id", "messages").text
        page.find_element("id", "new").click()
        assert shown(page) == []
        page.execute_script("document.querySelector('#text').value = 'cat '.repeat(5000)")
        page.find_element("id", "send").click()
        wait_for(lambda: f"context of {CONTEXT} tokens" in page.find_element("id", "error").text, PATIENCE)
        assert "compat" not in "".join(asked) and hosts(page) == {address.removeprefix("http://")}


def test_a_completion_from_a_file(place):
    with browser(dark=True) as page:
        page.get(f"file://{place / 'base-page' / 'base.html'}")
        page.execute_script("document.querySelector('#settings').open = true")
        page.find_element("id", "temperature").send_keys("0")
        page.find_element("id", "max_tokens").send_keys("40")
        first = ask(page, "the cat")
        assert whole(first) == greedy(place / "base", "the cat", 40) and whole(first) != first  # with half characters
        page.find_element("id", "text").send_keys(ENTER)  # more of the same text
        wait_for(lambda: len(shown(page)) == 2 and page.find_element("id", "send").is_enabled(), PATIENCE)
        assert not complaints(page) and hosts(page) == set()


@pytest.mark.release
def test_a_browser_without_new_features(place):
    with serving_files(place / "chat-page") as (address, asked), browser() as page:
        page.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WITHOUT_COMPAT})
        page.get(f"{address}/#temperature=0&max_tokens=12")
        question = {"role": "user", "content": "Where is the cat?"}
        assert whole(ask(page, question["content"])) == greedy(place / "chat", [question], 12)
        assert "/engine/compat.wasm" in asked and "/engine/wllama.wasm" not in asked
        assert not complaints(page) and hosts(page) == {address.removeprefix("http://")}
