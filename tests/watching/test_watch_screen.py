"""The screen of `scratch watch`: at any size, without colours or Unicode, for one run and for several."""

import io
import math
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from training.common.metrics import json_line
from training.stages.stage import Stage
from training.watching.chart import Series, draw
from training.watching.screen import compose
from training.watching.watch import Watch

SIZES = [(40, 10), (80, 24), (200, 60), (20, 3), (1, 1)]


def write_run(target, name="pretrain", steps=200, finished=True):
    stage = Stage(name, str(target), {"max_steps": 2 * steps}, {}, [])
    folder = stage.begin()
    common = {"learning_rate": 0.01, "grad_norm": 0.5, "bits_per_byte": 1.25, "tokens_per_second": 7583, "mfu": 0.481}
    records = [{"step": step, "loss": 2 + 5 * math.exp(-step / 30)} | common for step in range(1, steps + 1)]
    records += [{"step": step, "validation_loss": 2.5} for step in (100, 200)]
    (folder / "metrics.jsonl").write_text("".join(map(json_line, records)))
    text = (
        "def read_file(path):\n\treturn 1 \x1b[31m# \x07 漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字\n\n"
    )
    (folder / "samples.jsonl").write_text(json_line({"step": 200, "prompt": "def", "text": text}) * 2)
    (folder / "insight").mkdir()
    heads = [
        {"step": 128, "layer": layer, "head": head, "probe": "repeated", "induction": layer / 10 + head / 100}
        for layer in range(4)
        for head in range(4)
    ]
    (folder / "insight" / "heads.jsonl").write_text("".join(map(json_line, heads)))
    if finished:
        stage.finish({}, wrote="model")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    for name in ("a", "b", "c"):
        write_run(place / name)
    write_run(place / "a_rather_long_name_of_a_run_that_has_a_long_name", finished=False)
    return place


def screen(place, *names, size=(80, 24), ascii_only=False):
    watch = Watch.open([str(place / name) for name in names])
    return [line.plain.rstrip() for line in compose(watch.runs, *size, ascii_only)]


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c")], ids=["one", "three"])
@pytest.mark.parametrize("width, height", SIZES)
@pytest.mark.parametrize("ascii_only", [False, True], ids=["unicode", "ascii"])
def test_it_fits_any_terminal(place, names, width, height, ascii_only):
    lines = screen(place, *names, size=(width, height), ascii_only=ascii_only)
    assert len(lines) <= height and max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    assert not re.search(r"[\0-\x09\x0b-\x1f\x7f-\x9f]", text)
    if ascii_only and len(names) > 1:
        assert text.isascii()


def test_one_run_on_a_usual_terminal(place):
    lines = screen(place, "a", size=(80, 40))
    text = "\n".join(lines)
    assert re.search(r"/a  pretrain  finished in \d+:\d\d$", lines[0])
    assert lines[1].startswith("step 200/400  ━━━━")
    for fact in (
        "loss 2.006",
        "bits/byte 1.250",
        "validation 2.500 at step 200",
        "lr 0.01",
        "7,583 tokens/s",
        "MFU 48%",
    ):
        assert fact in text
    assert "samples at step 200" in lines and "| def read_file(path):" in lines and "|     return 1 ␛[31m# ␇ 漢" in text
    assert "heads (layer.head) at step 128" in lines
    assert "induction       3.3 0.33   3.2 0.32   3.1 0.31   3.0 0.30" in lines
    assert any("⠑" in line or "⠉" in line for line in lines) and "◆" in text
    assert lines[-1] == "q leaves; the run goes on"


def test_the_essential_on_a_small_terminal(place):
    lines = screen(place, "a_rather_long_name_of_a_run_that_has_a_long_name", size=(40, 10))
    text = "\n".join(lines)
    assert "running for 0:0" in text and "step 200/400" in text and "loss 2.006" in text
    assert "samples" not in text and len(lines) == 10


def test_several_runs_share_a_chart(place):
    lines = screen(place, "a", "b", "c", size=(80, 40))
    assert [line[0] for line in lines if line.endswith(("/a", "/b", "/c"))] == ["A", "B", "C"]
    assert sum("finished in" in line for line in lines) == 3


def test_without_colours(place, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, height=24, color_system="truecolor")
    for line in compose(Watch.open([str(place / "a")]).runs, 80, 24):
        console.print(line)
    codes = set(re.findall(r"\x1b\[([\d;]*)m", stream.getvalue()))
    assert codes <= {"0", "1", "2", "1;2"}  # bold and dim


@pytest.mark.parametrize(
    "points", [[(1, 2.0)], [(1, 2.0), (2, 2.0)], [(0, -1e300), (1, 1e300)], [(step, step) for step in range(10_000)]]
)
def test_odd_curves(points):
    lines = draw([Series(points, "cyan"), Series(points[-1:], "red", "A")], 60, 12)
    assert len(lines) == 12 and max(line.cell_len for line in lines) <= 60
    assert sum("A" in line.plain for line in lines) == 1


@pytest.mark.parametrize("points, size", [([], (60, 12)), ([(1, 1.0)], (12, 12)), ([(1, 1.0)], (60, 2))])
def test_no_chart_without_points_or_room(points, size):
    assert draw([Series(points, "cyan")], *size) == []
