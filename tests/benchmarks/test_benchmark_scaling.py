"""The benchmark of growth finds the laws that are in its points, resumes, and its tables are those of the page."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scaling, scaling_use
from benchmarks.scaling_curves import Curve, Quantity, fit, fit_added
from benchmarks.scaling_data import write_text
from benchmarks.stages import cost

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "scaling.md"
SIZES = np.array([1, 2, 4, 8, 16, 32, 64])


def counted(sizes=(1, 2, 4), rounds=3):
    """A curve of squares, and the sizes that were really measured."""
    calls = []

    def measure(size, folder):
        calls.append(size)
        return {"seconds": size**2 + (100 if len(calls) % 3 == 0 else 0)}  # one repetition in three is disturbed

    return Curve("data", "squares", "", "items", sizes, (1,), measure, (Quantity("seconds", "time, s"),), rounds), calls


def test_a_law_holds_from_where_it_bends():
    law = fit(SIZES, np.maximum(4.0, SIZES) ** 2)
    assert law.exponent == pytest.approx(2) and law.scale == pytest.approx(1) and (law.first, law.last) == (4, 64)
    assert law.miss == pytest.approx(0, abs=1e-9) and law.below == pytest.approx(0, abs=1e-9)
    law = fit(SIZES, 3.0 * SIZES**1.5)
    assert law.exponent == pytest.approx(1.5) and law.first == 1 and law.below is None


def test_without_a_law_the_last_two_points_have_a_slope():
    law = fit(SIZES, [1, 1, 1, 1, 1, 9, 18])
    assert (law.first, law.last) == (32, 64) and law.exponent == pytest.approx(1) and law.below > 0
    assert fit(SIZES[:1], [1.0]) is None


def test_what_sizes_add_to_a_constant_has_a_law_of_its_own():
    values = 5 + 0.5 * SIZES
    assert fit(SIZES, values).exponent < 0.8
    law = fit_added(SIZES, values)
    assert law.exponent == pytest.approx(1) and (law.first, law.last) == (2, 64) and law.miss < 1e-6
    assert law(SIZES[1:]) == pytest.approx(values[1:])
    assert fit_added(SIZES, np.full(7, 5.0)) is None


def test_points_are_medians_and_measured_once(tmp_path):
    curve, calls = counted()
    results = scaling.Results(tmp_path / "out.json", {"threads": 1})
    results.measure(curve, 2, tmp_path)
    assert calls == [2, 2, 2] and results.points[curve.title]["2"]["seconds"] == 4

    again = scaling.Results(tmp_path / "out.json", {"threads": 1})
    scaling.measure_all([curve], again, longest=60, small=False)
    assert calls == [2, 2, 2, 1, 1, 1, 4, 4, 4] and list(again.points[curve.title]) == ["1", "2", "4"]
    with pytest.raises(SystemExit, match="measured with another threads; name another file, or delete it"):
        scaling.Results(tmp_path / "out.json", {"threads": 2})


def test_a_curve_ends_where_a_repetition_takes_too_long(tmp_path):
    curve, calls = counted(rounds=1)
    scaling.measure_all([curve], scaling.Results(tmp_path / "out.json", {}), longest=0, small=False)
    assert calls == [1]


def test_the_cost_of_a_stage_is_that_of_its_process(tmp_path):
    found = cost("tokenizer", {"help": "true"})
    assert 0 < found.processor_seconds and found.megabytes > 5 and found.seconds > 0
    with pytest.raises(SystemExit, match=r"scratch tokenizer failed: error: "):
        cost("tokenizer", {"data.path": tmp_path / "missing.txt", "output_dir": tmp_path / "out"})


def test_text_and_items_are_as_many_as_requested(tmp_path):
    short, long = (write_text(tmp_path / f"{size}.jsonl", size * 1e6) for size in (1, 2))
    assert 1e6 < short.stat().st_size and long.read_text().startswith(short.read_text())
    files = scaling_use.write_items(tmp_path, 5)
    chats, pairs = ([json.loads(line) for line in files[kind].read_text().splitlines()] for kind in ("chats", "pairs"))
    assert len(chats) == len(pairs) == 5 and all(pair["chosen"] != pair["rejected"] for pair in pairs)
    assert [pair["prompt"] for pair in pairs] == [chat["prompt"] for chat in chats]


def test_tables_and_pictures_come_from_the_points(tmp_path):
    curve, _ = counted()
    results = scaling.Results(tmp_path / "out.json", {"clock": "wall", "processor": "P", "threads": 2} | VERSIONS)
    scaling.measure_all([curve], results, longest=60, small=False)
    tables = scaling.blocks([curve], results)
    assert "| items | time, s |\n| --- | ---: |\n| 1 | 1.00 |\n| 2 | 4.00 |\n" in tables["data, squares"]
    assert "| squares | time | 2.00 | 1 | 4 | 0 % |  |" in tables["data, exponents"]
    assert tables["conditions"] == "P, 2 threads, wall time, torch 1, transformers 2.\n"

    names = "".join(f"\n<!-- scaling: {name} -->\nstale\n<!-- scaling: end -->\n" for name in tables)
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n{names}Last.\n")
    scaling.rewrite(page, tables)
    assert "stale" not in page.read_text() and all(table in page.read_text() for table in tables.values())
    once = page.read_text()
    scaling.rewrite(page, tables)
    assert page.read_text() == once
    page.write_text(once.replace("data, squares", "data, cubes"))
    with pytest.raises(SystemExit, match="differ in: data, cubes, data, squares"):
        scaling.rewrite(page, tables)
    scaling.draw_all(tmp_path, [curve], results)
    assert (tmp_path / "scaling_data.png").read_bytes().startswith(b"\x89PNG")


VERSIONS = {"torch": "1", "transformers": "2"}


def test_the_page_has_every_table_and_picture():
    page = PAGE.read_text()
    curves = [curve for group in scaling.GROUPS.values() for curve in group("wall")]
    assert len({curve.title for curve in curves}) == len(curves)
    names = {"conditions", "minutes"} | {f"{curve.group}, {curve.panel}" for curve in curves}
    names |= {f"{group}, exponents" for group in scaling.GROUPS}
    assert {name for _, name in scaling.BLOCK.findall(page)} == names
    for group in scaling.GROUPS:
        assert f"(scaling_{group}.png)" in page
        assert (ROOT / "docs" / f"scaling_{group}.png").stat().st_size <= 100_000


@pytest.mark.release
def test_every_curve_is_measured_by_the_real_code(tmp_path):
    command = [sys.executable, "-m", "benchmarks.scaling", "--small", f"--out={tmp_path}/out.json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    curves = [curve for group in scaling.GROUPS.values() for curve in group("wall")]
    assert set(found["points"]) == {curve.title for curve in curves}
    for curve in curves:
        for point in found["points"][curve.title].values():
            assert all(point[quantity.key] > 0 for quantity in curve.quantities)
    step = found["points"]["training: parameters, AdamW"]["64"]
    assert step["tensors"] == pytest.approx(step["planned_tensors"], rel=0.05)
    assert step["process"] == pytest.approx(step["planned_process"], rel=0.25)
