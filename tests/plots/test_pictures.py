"""Pictures in odd cases: without a warning, of a bounded size, with all text inside and legends beside the data."""

import itertools
import warnings

import matplotlib
import pytest
from matplotlib.figure import Figure
from pictures import CASES

MOST_PIXELS = 2700  # of a side
ODD = """confusion_2 confusion_20_long confusion_77_long confusion_77_perfect confusion_missing loss_one_step
loss_not_finite runs_2_remark runs_40 runs_not_finite reward_one_step reward_not_finite funnel_nothing_dropped
funnel_long summary_one summary_long summary_not_finite
comparison_one comparison_long comparison_not_finite leaderboard_long
leaderboard_no_history""".split()  # the script draws all


@pytest.mark.parametrize("case", ODD)
def test_a_picture(case, tmp_path, monkeypatch):
    figures, save = [], Figure.savefig

    def save_measured(self, file, **options):
        figures.append(self)
        save(self, file, dpi=self.dpi)  # the resolution at which sizes are measured below

    monkeypatch.setattr(Figure, "savefig", save_measured)
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
