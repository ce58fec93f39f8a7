"""Pictures in odd cases: without a warning, of a bounded size, with all text inside and legends beside the data."""

import itertools
import warnings

import matplotlib
import pytest
from matplotlib.figure import Figure as Drawing
from pictures import CASES

from training.eval.measures.figures import Figure, MetricKey
from training.eval.results import picture
from training.eval.results.results_file import ModelResults
from training.plots import losses
from training.plots.style import short_names

MOST_PIXELS = 2700  # of a side
ODD = """confusion_2 confusion_20_long confusion_77_long confusion_77_perfect confusion_missing loss_one_step
loss_not_finite runs_2_remark runs_40 runs_not_finite reward_one_step reward_not_finite funnel_nothing_dropped
funnel_long summary_one summary_long summary_not_finite
comparison_one comparison_long comparison_not_finite leaderboard_long
leaderboard_no_history phases_many phases_no_held_out frames_two moment
ablation_many ablation_one merges_long neighbours_many positions_two""".split()  # the script draws all


@pytest.mark.parametrize("case", ODD)
def test_a_picture(case, tmp_path, monkeypatch):
    figures, save = [], Drawing.savefig

    def save_measured(self, file, **options):
        figures.append(self)
        save(self, file, dpi=self.dpi)  # the resolution at which sizes are measured below

    monkeypatch.setattr(Drawing, "savefig", save_measured)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CASES[case](tmp_path / "picture.png")
    (figure,) = figures
    assert max(figure.get_size_inches()) * 150 <= MOST_PIXELS
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert drawn.x0 > -0.02 and drawn.y0 > -0.02 and drawn.x1 < width + 0.02 and drawn.y1 < height + 0.02
    legends = [legend for part in (figure, *figure.subfigs) for legend in part.legends]
    for legend, axes in itertools.product(legends, figure.axes):
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())
    assert not any(axes.get_legend() for axes in figure.axes)


def test_nothing_finite_gives_no_picture(tmp_path):
    CASES["reward_nothing"](tmp_path / "reward.png")
    assert not (tmp_path / "reward.png").exists()


def test_drawing_leaves_the_settings_of_the_process_alone(tmp_path):
    matplotlib.rcParams["font.size"] = 7
    CASES["loss_one_step"](tmp_path / "loss.png")
    assert matplotlib.rcParams["font.size"] == 7


def test_long_names_stay_distinct():
    first, second = ("the same beginning of a name " + letter + " and the same ending of it" for letter in "ab")
    names = short_names([first, "short", second], 24)
    assert names[1] == "short" and len(set(names)) == 3 and names[2].endswith("#3")


def test_every_model_has_a_legend_entry(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(picture, "legend_below", lambda figure, handles, names: shown.append(list(names)))
    first, second = ("runs/the/same/beginning/" + letter + "/the/same/ending" for letter in "ab")
    figures = {MetricKey("tasks", "quiz", "acc"): Figure(0.5, 0.1, 10, chance=0.25)}
    models = {name: ModelResults("", 1, figures=figures) for name in (first, second)}
    picture.draw_summary(tmp_path / "summary.png", [], models)
    assert len(shown[0]) == 3 and shown[0][2] == "chance"


def test_no_run_is_cut_off(tmp_path, monkeypatch):
    """A short run of a high loss beside long ones."""
    limits = []
    monkeypatch.setattr(losses, "save", lambda figure, file: limits.append(figure.axes[0].get_ylim()))
    low = [{"step": step, "loss": 2 + 1 / step} for step in range(1, 1000)]
    high = [{"step": step, "loss": 8.0} for step in range(1, 6)]
    losses.plot_runs({"low": low, "high": high}, tmp_path / "runs.png", "step", "loss")
    assert limits[0][1] > 8
