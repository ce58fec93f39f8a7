"""The report of a GPU, here with tiny models on the CPU: every section runs, once, and a failure is repeated last."""

import json
import math
import time

import pytest
import torch

from benchmarks import gpu, gpu_correctness, gpu_speed
from benchmarks.gpu_correctness import Setting

SMALL = Setting(torch.device("cpu"), small=True)
CONDITIONS = {"device": "cpu"}


def test_every_section_runs_and_a_second_call_has_nothing_left(tmp_path):
    sections, report = gpu.sections(SMALL), gpu.Report(tmp_path, CONDITIONS)
    gpu.run(report, sections, deadline=math.inf)
    assert report.problems() == []
    again = gpu.Report(tmp_path, CONDITIONS)
    assert again.results == json.loads((tmp_path / "gpu.json").read_text())["sections"]
    assert list(again.results) == [section.key for section in sections] and again.open_sections(sections) == []
    page = (tmp_path / "gpu.md").read_text()
    titles = dict.fromkeys(section.title for section in sections)
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == list(titles)
    assert "All checks passed." in page and "| sdpa, packed documents, bf16: gradient |" in page


def test_what_failed_comes_last_and_nothing_starts_late(tmp_path):
    def fails():
        raise ValueError("no luck")

    broken = gpu.Section("Broken", "", fails)
    fine = gpu.Section("Fine", "one", lambda: [{"check": "sum", "error": 1.0, "limit": 0.5, "passed": False}])
    report = gpu.Report(tmp_path, CONDITIONS)
    gpu.run(report, [broken, fine], deadline=time.monotonic() - 1)
    assert report.results == {}
    gpu.run(report, [broken], deadline=math.inf)
    assert report.open_sections([broken, fine]) == [fine, broken]
    gpu.run(report, [broken, fine], deadline=math.inf)
    assert report.problems() == ["Broken: ValueError: no luck", "Fine: one: check sum, error 1, limit 0.5, passed no"]
    assert "**failed:** Broken: ValueError: no luck" in (tmp_path / "gpu.md").read_text()


def test_a_section_that_killed_the_process_counts_as_failed(tmp_path):
    report = gpu.Report(tmp_path, CONDITIONS)

    def looks():
        assert json.loads((tmp_path / "gpu.json").read_text())["sections"] == {"Killer": {"error": "it did not end"}}
        return []

    gpu.run(report, [gpu.Section("Killer", "", looks)], deadline=math.inf)
    assert report.problems() == []


def test_another_device_needs_another_folder(tmp_path):
    gpu.Report(tmp_path, CONDITIONS).note("Device", rows=[])
    with pytest.raises(SystemExit, match="another device"):
        gpu.Report(tmp_path, {"device": "cuda"})


def test_nan_does_not_pass():
    assert not gpu_correctness.check("loss", math.nan, 1.0)["passed"]
    assert gpu_correctness.check("tokens", 0, 0)["passed"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L40", None),
    ],
)
def test_a_gpu_is_found_in_the_table_by_its_name(monkeypatch, name, expected):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    found = gpu_speed.data_sheet(torch.device("cuda"))
    assert (found and found.name) == expected


def test_wrong_attention_is_noticed(monkeypatch):
    """A kernel that ignores the padding mask."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def careless(module, query, key, value, attention_mask, **kwargs):
        return sdpa_attention_forward(module, query, key, value, None, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", careless)
    failed = {row["check"].partition(", fp32")[0] for row in gpu_correctness.attention(SMALL) if not row["passed"]}
    assert any("packed documents" in name for name in failed) and not any("causal" in name for name in failed)
