"""Metrics read again: figures are finite numbers, and a log that holds something else is rejected."""

import pytest
from messages import refused

from training.common.metrics import MetricsLog, read_metrics


def test_figures_that_are_not_finite_are_left_out(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": NaN, "mfu": null, "tokens": %s, "seconds": 2.5}\n{"st' % ("9" * 400))
    assert read_metrics(file) == [{"step": 1, "seconds": 2.5}]


def test_a_truth_value_is_a_figure(tmp_path):
    """`same_bits` is one: whether a number of threads computes the same bits."""
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "threads": 2, "same_bits": false}\n')
    assert read_metrics(file) == [{"step": 1, "threads": 2, "same_bits": False}]


@pytest.mark.parametrize("line", ['{"loss": 1}', '{"step": "1"}', '{"step": 1, "loss": [1]}', "3"])
def test_other_files(tmp_path, line):
    file = tmp_path / "metrics.jsonl"
    file.write_text(line + "\n")
    with refused(None, file, "not the metrics"):
        read_metrics(file)


def test_a_log_may_hold_text(tmp_path):
    """Incidents do."""
    file = tmp_path / "incidents.jsonl"
    file.write_text('{"step": 1, "incident": "skipped"}\n{"step": 9, "incident": "skipped"}\n')
    MetricsLog(file, 5)
    assert file.read_text() == '{"step": 1, "incident": "skipped"}\n'
