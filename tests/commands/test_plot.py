"""`scratch plot`: which records it finds, what it says of them, and that it draws."""

import json

import matplotlib
import pytest

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

from training.commands.plot import main  # noqa: E402
from training.common.errors import UserError  # noqa: E402
from training.plots.losses import _label_ends, smooth  # noqa: E402


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


def test_names_are_what_differs(place, capsys):
    main(["runs/small/pretrain", "./runs/large/pretrain"])
    assert {"small", "large"} <= {line.split()[0] for line in capsys.readouterr().out.splitlines() if line}


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


def test_labels_keep_their_distance():
    figure, axes = pyplot.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    _label_ends(axes, [((1, 0.5), "a", "k"), ((1, 0.501), "b", "k"), ((1, 0.9), "c", "k"), ((1, 0.502), "d", "k")], 13)
    figure.canvas.draw()
    heights = sorted(text.get_window_extent().y0 * 72 / figure.dpi for text in axes.texts)
    assert min(high - low for low, high in zip(heights, heights[1:], strict=False)) > 12.5
    pyplot.close(figure)
