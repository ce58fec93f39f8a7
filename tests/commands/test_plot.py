"""`scratch plot`: which records it finds, what it says of them, and that it draws."""

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time

import matplotlib
import pytest
from faults import disk_fills_in_a_picture

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402
from provenance import write_provenance  # noqa: E402

from training.commands.plot import main  # noqa: E402
from training.common.errors import UserError  # noqa: E402
from training.data.shards import write_manifest, write_shard  # noqa: E402
from training.plots.losses import plot_losses, smooth, trainer_curves  # noqa: E402
from training.plots.style import COLOURS  # noqa: E402
from training.stages.provenance import digest  # noqa: E402
from training.stages.stage import Stage  # noqa: E402


def write_run(folder, loss=2.0, steps=40):
    folder.mkdir(parents=True)
    records = []
    for step in range(1, steps + 1):
        common = {"step": step, "tokens": 100 * step, "seconds": 1.5 * step}
        value = loss + 4 / step
        records.append(common | {"loss": value, "bits_per_byte": value / 3, "tokens_per_second": 1000 + step})
        if step % 10 == 0:
            held_out = value + 0.1 * (step == steps)
            records.append(common | {"validation_loss": held_out, "validation_bits_per_byte": held_out / 3})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "small" / "pretrain", loss=3.0)
    write_run(tmp_path / "runs" / "large" / "pretrain.partial", loss=2.0, steps=30)
    return tmp_path


def test_runs_beside_one_another(place, capsys):
    main(["runs/small", "runs/large/pretrain", "--x", "seconds", "--y", "bits_per_byte", "--output", "both.png"])
    assert (place / "both.png").read_bytes().startswith(b"\x89PNG")
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(("small", "large"))}
    assert rows["small"] == ["40", "4,000", "1.0", "3.2000", "3.1333", "1,020"]
    assert rows["large/pretrain"] == ["30", "3,000", "0.8", "2.2333", "2.2000", "1,016"]
    assert lines[-1] == "plot: wrote both.png"


@pytest.mark.parametrize("run", ["runs/small/pretrain/metrics.jsonl", "runs/large", "runs/large/pretrain.partial/"])
def test_a_run_may_be_named_in_many_ways(place, run, capsys):
    main([run])
    assert (place / "plot.png").stat().st_size > 10_000
    assert "plot: wrote plot.png" in capsys.readouterr().out


def test_a_full_disk_leaves_the_last_picture(place):
    main(["runs/small", "--output", "it.svg"])
    before = (place / "it.svg").read_bytes()
    with disk_fills_in_a_picture(), pytest.raises(OSError):
        main(["runs/small", "--output", "it.svg", "--x", "step"])
    assert (place / "it.svg").read_bytes() == before and sorted(os.listdir(place)) == ["it.svg", "runs"]


def test_names_are_what_differs(place, capsys):
    main(["runs/small/pretrain", "./runs/large/pretrain"])
    assert {"small", "large"} <= first_words(capsys)


def test_a_run_beside_the_folder_that_holds_it(place, capsys, monkeypatch):
    main(["runs/small", "runs/small/../large/pretrain", "--x", "step"])
    assert {"small", "large/pretrain"} <= first_words(capsys)
    shutil.copytree("runs/small", "runs/large/pretrain/small")
    main(["runs/large/pretrain", "runs/large/pretrain/small", "--x", "step"])
    assert {"pretrain", "pretrain/small"} <= first_words(capsys)
    monkeypatch.chdir("runs/large/pretrain")
    main([".", "small", "--x", "step"])
    assert {".", "small"} <= first_words(capsys)


def first_words(capsys) -> set[str]:
    return {line.split()[0] for line in capsys.readouterr().out.splitlines() if line}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["runs"], "runs: no metrics .*; give the output folder"),
        ([], "'runs' is missing"),
        (["runs/small", "--z", "step"], "unknown key 'z'"),
        (["runs/small", "--x", "stepp"], "'x' must be one of tokens, step, seconds"),
        (["nowhere"], "nowhere: no metrics"),
        (["runs/small", "--y", "mfu"], "no record with both 'tokens' and 'mfu'"),
        (["runs/small", "runs/small/"], "the same run is given twice"),
        (["runs/small", "--output", "nowhere/plot.png"], "is not a .png, .svg or .pdf file in an existing folder"),
        (["runs/small", "--output", "plot"], "is not a .png"),
    ],
)
def test_refusals(place, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        main(arguments)
    assert "\n" not in str(caught.value) and not (place / "plot.png").exists()


def test_smoothing_is_the_mean_of_what_came_before():
    points = [(10, 1.0), (20, 3.0), (30, 8.0)]
    assert smooth(points, 1) == points
    assert smooth(points, 2) == [(20, 2.0), (30, 5.5)]


def write_shards(folder, tokenizer, documents=9):
    stage = Stage("prepare", str(folder), {"tokenizer": tokenizer, "documents": documents}, {}, [])
    work = stage.begin()
    (work / "tokenizer.json").write_text(tokenizer)
    ids = [[1, 2, 0]] * documents
    size = {"bytes": 10 * documents}
    splits = {name: write_shard(work, name, ids, 8, "x") | size for name in ("train", "validation")}
    write_manifest(work, splits, work, 8, {})
    stage.finish({}, wrote="shards")
    return digest(folder)


def test_runs_that_do_not_compare_are_drawn_with_a_remark(place, capsys):
    """By the shards' manifests while they are there, which tell the same text in other tokens. Later only the tokenizer
    is known, by its digest."""
    shards = {name: write_shards(place / name, tokenizer, n) for name, tokenizer, n in
              (("one", "a", 9), ("two", "b", 9), ("three", "b", 5))}  # fmt: skip
    for run, data in zip(("small", "large", "other"), shards):
        folder = place / "runs" / run / "pretrain"
        if run != "small":
            write_run(folder)
        inputs = {"data": shards[data], "tokenizer": f"digest of {data}"}
        write_provenance(folder, "pretrain", recipe={"data": data}, inputs=inputs)

    def remarks(*arguments):
        main(list(arguments))
        lines = capsys.readouterr().out.splitlines()
        return [line.removeprefix("plot: ") for line in lines if line.startswith("plot: The ")]

    tokenizers, texts = "The tokenizers differ", "The validation texts differ"
    assert [line[:21] for line in remarks("runs/small", "runs/large/pretrain")] == [tokenizers]
    assert not remarks("runs/small", "runs/large/pretrain", "--y", "bits_per_byte")
    assert [line[:27] for line in remarks("runs/large/pretrain", "runs/other")] == [texts]
    assert not remarks("runs/large/pretrain", "runs/other", "--y", "tokens_per_second")
    shutil.rmtree(place / "one")
    assert [line[:21] for line in remarks("runs/small", "runs/large/pretrain")] == [tokenizers]


def test_names_and_figures_from_elsewhere(place, monkeypatch):
    """Two dollar signs in a name, NaN and infinity among the figures, a backend that does not exist."""
    odd = place / "cost_$5_and_$6^"
    write_run(odd)
    with (odd / "metrics.jsonl").open("a") as stream:
        for value in ("NaN", "Infinity", "null"):
            stream.write(f'{{"step": 41, "tokens": 4100, "loss": {value}, "validation_loss": {value}}}\n')
    main(["runs/small", str(odd), "--output", "odd.png"])
    assert (place / "odd.png").stat().st_size > 10_000


def test_an_unknown_backend_does_not_matter():
    code = "from training.plots.style import drawing\nwith drawing() as pyplot: pyplot.subplots()"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"MPLBACKEND": "nonsense"}, check=True)


def test_many_records_take_linear_time(place):
    points = [(float(n), float(n % 3)) for n in range(200_000)]
    started = time.process_time()
    smoothed = smooth(points, 4000)
    assert time.process_time() - started < 2 and len(smoothed) == 196_001
    assert smoothed[-1][1] == pytest.approx(statistics.fmean(value for _, value in points[-4000:]))
    records = [{"step": n, "loss": 9.0 if n == 12_345 else loss} for n, (_, loss) in enumerate(points)]
    started = time.process_time()
    plot_losses(records, place / "loss.png", "sft", "step")
    assert time.process_time() - started < 5


def test_a_short_run_is_a_point_and_an_empty_one_no_picture(tmp_path):
    assert plot_losses([{"step": 1, "loss": 2.0}], tmp_path / "loss.png", "sft", "step") == ["loss.png"]
    assert visible_pixels(tmp_path / "loss.png", COLOURS[0]) > 10
    for nothing in ([], [{"step": 1, "loss": math.nan}], [{"step": 1, "learning_rate": 1.0}]):
        assert plot_losses(nothing, tmp_path / "none.png", "sft", "step") == []
    assert not (tmp_path / "none.png").exists()


def visible_pixels(file, colour):
    wanted = matplotlib.colors.to_rgb(colour)
    pixels = pyplot.imread(file)[..., :3]
    return int((abs(pixels - wanted).max(-1) < 0.35).sum())


def test_a_trainers_history_is_drawn_with_its_validations():
    history = [{"step": 1, "loss": 2.0}, {"step": 1, "eval_loss": 2.5, "eval_runtime": 1.0}, {"step": 1, "runtime": 2}]
    assert trainer_curves(history) == [{"step": 1, "loss": 2.0}, {"step": 1, "validation_loss": 2.5}]
