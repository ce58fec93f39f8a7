"""The attention page in a real browser: its numbers are the record's, and it loads nothing."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from browser import browser, wait_for
from insight import CAPTURED, HEAD_DIM, PERIOD, TOKENS, VECTORS, write_record

from training.attention_page.page import write_page
from training.insight.measures import MEASURES
from training.insight.record import (
    Layout,
    Probe,
    Record,
    RecordWriter,
    Snapshot,
    StepScores,
    Vectors,
    as_stored,
    probability,
)

pytestmark = pytest.mark.slow
HOSTILE = ["</script><script>hacked=1</script>", "<img src=x onerror=hacked=1>", "{{maps}}", "\u2028"]
SHARE = re.compile(r"\(token (\d+)\) reads ([\d.]+) % from .* \(token (\d+)\)")
MORE = [(0, 1), (1, 1)]  # heads with vectors of the last step alone; those of the record's heads, exchanged
LEFT, TOP = 82, 70  # of the map in its canvas, see static/heatmap.js


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """The synthetic record, with texts of tokens that would end a script or load an image."""
    record = write_record(tmp_path_factory.mktemp("run") / "insight")
    first, *others = record.probes
    return replace(record, probes=[replace(first, tokens=HOSTILE + first.tokens[len(HOSTILE) :]), *others])


@pytest.fixture(scope="module")
def window():
    with browser(1280, 900) as window:
        yield window


@pytest.fixture(scope="module")
def page(record, window, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "attention.html"
    last = record.snapshot(CAPTURED[-1])
    drawn = zip(last.query, last.key, last.value, strict=True)
    query, key, value = zip(*([tensor[::-1] for tensor in of_probe] for of_probe in drawn), strict=True)
    more = Vectors(MORE, Snapshot(last.step, last.attention, query, key, value))
    write_page(record, file, "run <b>1</b> {{figures}}", more)
    return open_page(window, file)


def open_page(window, file):
    window.get(f"file://{file}")
    wait_for(lambda: window.find_element("id", "moment").text)
    return window


def text(page, name):
    return page.find_element("id", name).text


def picture(page, name):
    return page.execute_script(f"return document.getElementById('{name}').toDataURL()")


def choose(page, name, value):
    """Choose in a menu, or a place of the slider, and wait until it is drawn."""
    kind = "input" if name == "step" else "change"
    script = f"const node = document.getElementById('{name}'); node.value = '{value}'; "
    page.execute_script(script + f"node.dispatchEvent(new Event('{kind}'))")
    page.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0]))")


def point(page, name, x, y):
    """Move the pointer to a place of a canvas, in CSS pixels."""
    script = f"const node = document.getElementById('{name}'), box = node.getBoundingClientRect(); "
    event = f"{{clientX: box.left + {x}, clientY: box.top + {y}, bubbles: true}}"
    page.execute_script(script + f"node.dispatchEvent(new PointerEvent('pointermove', {event}))")
    page.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0]))")


def point_at_cell(page, query, key, tokens=TOKENS):
    cell = (page.find_element("id", "map").size["width"] - LEFT - 2) / tokens
    point(page, "map", LEFT + (key + 0.5) * cell, TOP + (query + 0.5) * cell)


def number(words):
    return float(words.replace("−", "-"))


def test_the_slider_changes_the_maps(page):
    seen = {}
    for frame, step in enumerate(CAPTURED):
        choose(page, "step", frame)
        assert text(page, "moment").startswith(f"step {step} ")
        seen[step] = picture(page, "map"), picture(page, "grid"), picture(page, "scatter"), picture(page, "cube")
    assert all(len(set(drawn)) == len(CAPTURED) for drawn in zip(*seen.values(), strict=True))
    body = page.find_element("tag name", "body")
    body.send_keys("\ue012")  # arrow left
    wait_for(lambda: text(page, "moment").startswith(f"step {CAPTURED[-2]} "))
    assert picture(page, "map") == seen[CAPTURED[-2]][0]
    choose(page, "step", 0)
    body.send_keys(" ")  # plays to the end
    wait_for(lambda: text(page, "moment").startswith(f"step {CAPTURED[-1]} ") and text(page, "play") == "Play")


def test_shares_are_those_of_the_record(page, record):
    for probe in range(len(record.probes)):
        choose(page, "probe", probe)
        for layer, head, frame in ((0, 0, 3), (1, 0, 2), (1, 1, 0)):
            choose(page, "head", f"{layer},{head}")
            choose(page, "step", frame)
            expected = probability(record.snapshot(CAPTURED[frame]).attention[probe])[layer, head]
            for query, key in ((TOKENS - 1, TOKENS - PERIOD), (5, 4), (3, 0)):
                point_at_cell(page, query, key)
                row, share, column = SHARE.search(text(page, "map_cell")).groups()
                assert (int(row), int(column)) == (query, key)
                assert float(share) / 100 == pytest.approx(expected[query, key], abs=5.1e-3)
    point_at_cell(page, 3, 9)
    assert "comes later" in text(page, "map_cell")


def test_measures_are_those_of_the_record(page, record):
    for kind, name in enumerate(("repeated", "held_out")):
        choose(page, "kind", kind)
        choose(page, "head", "1,0")
        choose(page, "step", 2)
        step = CAPTURED[2]
        scores = {(at.step, at.layer, at.head, at.probe): at for at in record.head_scores}[step, 1, 0, name]
        lines = [line.text for line in page.find_elements("css selector", "#head_scores li")]
        assert len(lines) == len(MEASURES)
        for line, (measure, sentence) in zip(lines, MEASURES.items(), strict=True):
            assert line.startswith(measure.replace("_", " ")) and line.endswith(sentence)
            value = number(line.removeprefix(measure.replace("_", " ")).split()[0])
            assert value == pytest.approx(getattr(scores, measure), rel=5e-3, abs=1e-4)
    loss = next(at.loss for at in record.steps if at.step == step)
    assert text(page, "moment").endswith(f"loss {loss:.2f}")


def test_the_arithmetic_of_a_cell(page, record):
    choose(page, "probe", 1)
    for place, (layer, head) in [*enumerate(VECTORS), (1, MORE[0]), (0, MORE[1])]:
        choose(page, "head", f"{layer},{head}")
        choose(page, "step", 3)
        snapshot = record.snapshot(CAPTURED[3])
        query, key, value = (
            tensors[1][place].astype(np.float64) for tensors in (snapshot.query, snapshot.key, snapshot.value)
        )
        allowed = snapshot.attention[1][layer, head] > 0
        scores = query @ key.T
        exponentials = np.where(allowed, np.exp(scores * record.scale), 0)
        shares = exponentials / exponentials.sum(axis=1, keepdims=True)
        for row, column in ((TOKENS - 1, TOKENS - PERIOD), (7, 6)):
            point_at_cell(page, row, column)
            lines = text(page, "arithmetic")
            product = re.search(rf"= (\S+)\s+\({HEAD_DIM} terms, the largest first\)", lines)
            assert number(product[1]) == pytest.approx(scores[row, column], abs=0.05)
            scaled = re.search(r"× \S+ = (\S+)\n", lines)
            assert number(scaled[1]) == pytest.approx(scores[row, column] * record.scale, abs=0.02)
            if allowed[row, column]:
                share = re.search(r"([\d.]+) % of what", lines)
                assert float(share[1]) / 100 == pytest.approx(shares[row, column], abs=0.015)
    cell = 7  # pixels of a number where there is room, see static/product.js
    width, height = (page.find_element("id", "product").size[side] for side in ("width", "height"))
    point(page, "product", width - 4 - 2.5 * cell, height - 4 - 0.5 * cell)
    output = re.search(rf"output₂₃, number {HEAD_DIM - 3} = .* = (\S+)\s+\({TOKENS} terms", text(page, "arithmetic"))
    assert number(output[1]) == pytest.approx((shares @ value)[TOKENS - 1, HEAD_DIM - 3], abs=0.02)


def test_pictures_answer_keys_and_clicks(page):
    choose(page, "head", "0,0")
    grid, cube = (page.find_element("id", name) for name in ("grid", "cube"))
    grid.send_keys("\ue014")  # arrow right
    wait_for(lambda: "head 1" in text(page, "map_title"))
    before = picture(page, "cube")
    cube.send_keys("\ue014")
    wait_for(lambda: picture(page, "cube") != before)
    before = picture(page, "product")
    page.find_element("xpath", "//button[text()='1 dot products']").click()
    wait_for(lambda: picture(page, "product") != before)
    page.find_element("id", "row_by_row").click()
    wait_for(lambda: "q₂₃" in text(page, "arithmetic"))
    choose(page, "x", "entropy")
    assert MEASURES["entropy"] in text(page, "scatter_help")


def test_a_head_with_vectors_of_another_step(page):
    choose(page, "head", "0,1")
    choose(page, "step", 1)
    assert f"at step {CAPTURED[-1]}." in text(page, "product_note")


def test_every_picture_has_words_for_a_screen_reader(page):
    pictures = page.find_elements("css selector", "canvas[role=img]")
    assert len(pictures) == 6
    for canvas in pictures:
        assert canvas.get_attribute("aria-label") and canvas.get_attribute("tabindex") == "0"
        assert text(page, canvas.get_attribute("aria-describedby"))
    unnamed = "return [...document.querySelectorAll('input, select')].filter((field) => !field.labels.length).length"
    assert page.execute_script(unnamed) == 0


def test_a_phone_and_dark_mode(page):
    light = picture(page, "product")
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    wait_for(lambda: picture(page, "product") != light)
    background = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, background.strip("rgb()").split(", "))) < 200
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    fits = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    wait_for(lambda: page.execute_script(fits))
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_texts_are_not_markup(page):
    choose(page, "probe", 0)
    assert "<img src=x" in text(page, "text") and "<b>1</b> {{figures}}" in page.title
    assert page.execute_script("return document.querySelectorAll('img, b').length") == 0
    assert page.execute_script("return document.scripts.length") == 6
    assert page.execute_script("return typeof hacked") == "undefined"


def test_nothing_is_requested_and_nothing_fails(page):
    assert not page.get_log("browser")
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = [entry["params"]["request"]["url"] for entry in messages if entry["method"] == "Network.requestWillBeSent"]
    assert urls and all(url.startswith(("file:", "data:")) for url in urls)


def test_a_head_without_vectors(record, window, tmp_path):
    write_page(record, tmp_path / "page.html", "run")
    page = open_page(window, tmp_path / "page.html")
    choose(page, "head", "0,1")
    assert "not of 0.1" in text(page, "product_note")
    assert page.find_element("id", "arithmetic").is_displayed()


def test_512_tokens(window, tmp_path):
    tokens = 512
    scores = np.random.default_rng(0).normal(size=(1, 2, tokens, tokens)) + 9 * np.eye(tokens, k=-1)
    shares = np.tril(np.exp(scores))
    shares /= shares.sum(axis=-1, keepdims=True)
    vectors = [np.ones((1, tokens, 4), np.float16)]
    probe = Probe("text", "text", list(range(tokens)), [f" token{place}" for place in range(tokens)])
    writer = RecordWriter(tmp_path, Layout(tokens, 3.0, 1, 2, 2, 4, 0.5, [(0, 1)], [probe]))
    for step in (0, 8):
        scores = StepScores(step, 0, 1.0, 0.0, 0.0, 1.0, [])
        writer.write(scores, [], Snapshot(step, [as_stored(shares)], vectors, vectors, vectors))
    written = write_page(Record.open(tmp_path), tmp_path / "long.html", "long")
    assert written.size < 3_000_000 and not written.left_out
    page = open_page(window, tmp_path / "long.html")
    point_at_cell(page, 500, 499, tokens)
    expected = probability(as_stored(shares[0, 0, 500, 499]))
    assert f"“␣token500” (token 500) reads {100 * expected:.0f} % from" in text(page, "map_cell")
    assert page.execute_script("return document.querySelectorAll('*').length") < 2 * tokens
    assert not page.get_log("browser")
