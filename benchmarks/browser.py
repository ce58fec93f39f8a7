"""Tokens per second of a model in the browser page, beside the same model in `scratch chat`.

    scratch export --model MODEL --to web --output_dir PAGE --name NAME
    python -m benchmarks.browser MODEL PAGE [--rounds 5] [--tokens 100]

Both write the most likely answer to one message with one thread and take turns; a round is one answer each, and the
rate leaves out the first token. The page runs in Chromium (selenium and its driver must be installed). The last line
is JSON.
"""

import argparse
import contextlib
import functools
import http.server
import json
import os
import platform
import re
import shutil
import statistics
import threading
import time
from pathlib import Path

import torch

from training.model_io.language_model import open_language_model

MESSAGE = "Write a function that adds two numbers."
PATIENCE = 300  # seconds for a page to load, and for an answer
RATE = re.compile(r"(\d+) tokens, ([\d.]+) tokens per second")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A static host that prints nothing."""

    def log_message(self, *values):
        pass


@contextlib.contextmanager
def opened_page(folder: str, tokens: int):
    """The page in Chromium, with the engine loaded, and the seconds that this took."""
    from selenium import webdriver

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        started = time.perf_counter()
        driver.get(f"http://127.0.0.1:{server.server_port}/#temperature=0&max_tokens={tokens}")
        wait_until(lambda: not driver.find_element("id", "loading").text)
        yield driver, time.perf_counter() - started
    finally:
        driver.quit()
        server.shutdown()


def wait_until(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"the page was not ready after {PATIENCE} seconds")
        time.sleep(0.2)


def rate_of_page(driver) -> float:
    """Tokens per second of one answer, as the page shows them."""
    driver.find_element("id", "new").click()
    driver.find_element("id", "text").send_keys(MESSAGE + "\ue007")
    wait_until(lambda: driver.find_elements("css selector", ".message.assistant"))
    wait_until(lambda: driver.find_element("id", "send").is_enabled())
    return float(RATE.search(driver.find_element("id", "messages").text)[2])


def rate_of_chat(model, ids: torch.Tensor, tokens: int) -> float:
    """Tokens per second of one answer by the decode loop of `scratch chat`."""
    moments: list[float] = []

    class Clock:
        def put(self, value):
            moments.append(time.perf_counter())

        def end(self):
            pass

    model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens, streamer=Clock())
    return (len(moments) - 2) / (moments[-1] - moments[1])  # the first is the prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of the model")
    parser.add_argument("page", help="folder of its page")
    parser.add_argument("--rounds", type=int, default=5, help="measured answers of each")
    parser.add_argument("--tokens", type=int, default=100, help="tokens of an answer")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = open_language_model(options.model, "cpu")
    messages = [{"role": "user", "content": MESSAGE}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt").input_ids
    rates: dict[str, list[float]] = {"page": [], "scratch chat": []}
    with opened_page(options.page, options.tokens) as (driver, loading):
        for number in range(options.rounds + 1):
            found = {"page": rate_of_page(driver), "scratch chat": rate_of_chat(model, ids, options.tokens)}
            for name, rate in found.items():
                if number:  # the first round warms up
                    rates[name].append(rate)
        browser = driver.capabilities["browserVersion"]
    size = sum(path.stat().st_size for path in Path(options.page).glob("*.gguf")) / 1e6
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Chromium {browser}, one thread, model of {size:.1f} MB in F32"
    )
    medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    for name, median in medians.items():
        print(f"{name:<14}{median:8.1f} tokens per second ({min(rates[name]):.1f} to {max(rates[name]):.1f})")
    print(json.dumps(medians | {"loading_seconds": round(loading, 1)}))


if __name__ == "__main__":
    main()
