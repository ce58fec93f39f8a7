"""Profiling: spans in the loop, and the tables and the trace of a run with `profile: true`."""

import gzip
import json
from collections.abc import Iterator

import pytest
import torch
from timings import TIMINGS
from tiny_stages import flags, forget_accelerate, write_data, write_tokenizer

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from training.commands import pretrain
from training.common.metrics import read_metrics
from training.pretraining import profile
from training.pretraining.profile import Profiler, Spans, span_parts

SIZES = {"model.hidden_size": 32, "model.num_hidden_layers": 1, "model.num_attention_heads": 2, "bf16": "false"}
SIZES |= {"sequence_length": 16, "global_batch_size": 2, "per_device_train_batch_size": 2, "eval_sequences": 2}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer = write_tokenizer(folder / "tokenizer")
    return {"tokenizer": str(tokenizer), "data": str(write_data(folder / "data", tokenizer))}


def train(inputs, output_dir, **options) -> list[dict]:
    """Train; return the records without timings."""
    forget_accelerate()
    pretrain.main(flags({**inputs, **SIZES, "output_dir": output_dir, "logging_steps": 1, **options}))
    records = read_metrics(output_dir / "metrics.jsonl")
    return [{key: value for key, value in record.items() if key not in TIMINGS} for record in records]


@pytest.fixture
def clock(monkeypatch) -> Iterator[list[float]]:
    now = [0.0]
    monkeypatch.setattr(profile.time, "perf_counter", lambda: now[0])
    yield now


def test_time_within_a_span_within_a_span_is_the_inner_ones(clock):
    spans = Spans(torch.device("cpu"))
    with spans("outer"):
        clock[0] += 1
        with spans("inner"):
            clock[0] += 4
        clock[0] += 2
    clock[0] += 3
    with spans("inner"):
        clock[0] += 8
    spans.stop()
    clock[0] += 16  # of no account
    assert dict(spans.seconds) == {"outer": 3, "inner": 12} and spans.wall == 18
    assert dict(spans.counts) == {"outer": 1, "inner": 2}
    spans.resume()
    with spans("outer"):
        clock[0] += 1
    spans.stop()
    assert spans.seconds["outer"] == 4 and spans.wall == 19
    rows = {line[:52].strip(): line[52:].split() for line in spans.table(steps=2).splitlines()[1:]}
    assert rows["outer"] == ["2000.00", "21.1%"] and rows["the rest"] == ["1500.00", "15.8%"]
    assert rows["a step"] == ["9500.00", "100.0%"]


def test_parts_have_spans_in_the_forward_pass_only():
    config = ScratchConfig.from_preset(
        "scratch", vocab_size=32, hidden_size=32, num_hidden_layers=3, num_attention_heads=2
    )
    model, spans = ScratchForCausalLM(config).train(), Spans(torch.device("cpu"))
    model.gradient_checkpointing_enable()  # runs the layers once more in the backward pass
    span_parts(model, spans)
    input_ids = torch.arange(8)[None]
    with spans("evaluation"):
        model(input_ids)
    assert dict(spans.counts) == {"evaluation": 1}
    with spans("forward"):
        loss = model(input_ids, labels=input_ids, skip_logits=True, use_cache=False).loss
    with spans("backward"):
        loss.backward()
    counts = {name.removeprefix("forward: "): count for name, count in spans.counts.items()}
    assert counts["attention"] == counts["MLP"] == 3 and counts["loss"] == counts["backward"] == 1
    assert counts["norms"] == 3 * 4 + 1  # before attention and MLP, of queries and keys, and the last one
    assert spans.outermost is None


def test_a_compiled_layer_is_left_alone():
    config = ScratchConfig.from_preset("llama", vocab_size=32, hidden_size=32, num_hidden_layers=1)
    model, spans = ScratchForCausalLM(config), Spans(torch.device("cpu"))
    model.compile_regions()
    span_parts(model, spans)
    hooked = {name for name, module in model.named_modules() if module._forward_pre_hooks}
    assert "model" in hooked and not any(name.startswith("model.layers") for name in hooked)


def test_a_profile_tells_where_the_time_goes_and_changes_nothing(inputs, tmp_path, capsys):
    steps = Profiler.steps_needed + 2
    options = {"max_steps": steps, "eval_steps": 5, "save_steps": 100}
    profiled = train(inputs, tmp_path / "profiled", profile="true", **options)
    printed = capsys.readouterr().out
    assert profiled == train(inputs, tmp_path / "plain", **options)
    assert "profile: wrote" in printed and "profile: the whole run" in printed and "metrics.jsonl, loss.png" in printed

    folder = tmp_path / "profiled" / "profile"
    with gzip.open(folder / "trace.json.gz", "rt") as stream:
        names = {event.get("name") for event in json.load(stream)["traceEvents"]}
    assert {"loader", "forward: attention", "backward", "optimizer", "aten::mm"} <= names
    grouped, operators = (folder / "table.txt").read_text().split("steps, by operator")
    assert "aten::mm" in operators
    rows = {line[:52].strip(): line[52:].split() for line in grouped.splitlines()[1:] if "%" in line}
    parts = {f"forward: {part}" for part in ("attention", "MLP", "norms", "loss")}
    parts |= {"loader", "backward", "optimizer", "logging", "evaluation", "checkpointing", "the rest"}
    assert parts <= set(rows)
    shares = [float(share.rstrip("%")) for name, (_, share) in rows.items() if name != "a step"]
    assert sum(shares) == pytest.approx(100, abs=1)
    assert not (tmp_path / "plain" / "profile").exists()


def test_a_run_too_short_to_trace_says_so(inputs, tmp_path, capsys):
    train(inputs, tmp_path / "model", profile="true", max_steps=2)
    assert f"nothing was traced: the run needs at least {Profiler.steps_needed} steps" in capsys.readouterr().out
