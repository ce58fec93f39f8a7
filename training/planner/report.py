"""A plan as tables for the terminal and as JSON."""

from dataclasses import asdict, replace
from typing import Any

from training.common.tables import Row, as_text
from training.planner.facts.head_sizes import head_size_note
from training.planner.facts.laws import CHINCHILLA, EPOCH, LAWS, recommended
from training.planner.layout import MACHINE, Layout, indivisible
from training.planner.memory import peak_memory
from training.planner.plan import Plan
from training.planner.units import (
    HOUR,
    Estimate,
    as_bytes,
    as_count,
    as_decimal_bytes,
    as_dollars,
    as_time,
    three_digits,
)


def as_report(plan: Plan) -> str:
    """All tables of a plan, each below its title."""
    parts = [f"{title}\n\n{as_text(table)}" for title, table in tables(plan)]
    return "\n".join([describe(plan), *summary(plan), "", *parts, *remarks(plan)])


def describe(plan: Plan) -> str:
    """The model, the run and the devices, on two lines."""
    a, shape = plan.architecture, plan.shape
    heads = f"{a.num_attention_heads} heads"
    if a.num_key_value_heads < a.num_attention_heads:
        heads += f" ({a.num_key_value_heads} of keys and values)"
    model = (
        f"{a.name}: {as_count(a.num_parameters)} parameters, {a.num_hidden_layers} layers, width {a.hidden_size:,}, "
        f"{heads}, vocabulary {a.vocab_size:,}"
    )
    run = (
        f"{as_count(shape.tokens)} tokens: {shape.steps:,} steps of {shape.global_batch:,} sequences of "
        f"{shape.sequence_length:,}, {shape.micro_batch} at once, {'bf16' if shape.bf16 else 'fp32'}, {shape.optimizer}"
        f"{', activation checkpointing' if shape.checkpointing else ''}, on {plan.layout.describe()}"
    )
    return f"{model}\n{run}"


def summary(plan: Plan) -> list[str]:
    """Sentences that answer first: whether it fits, and if not what would; how long it takes and what it costs."""
    memory, room = plan.memory, plan.layout.device.memory
    peak = memory.peak
    needed = f"{as_bytes(peak.expected)} ({as_bytes(peak.low)} to {as_bytes(peak.high)}) of {as_bytes(room)} in a step"
    if memory.loading > peak.expected:
        needed += f", {as_bytes(memory.loading)} while loading"
    if plan.remedy:
        fit = f"Does not fit: {needed}. First change that makes it fit: {plan.remedy}."
    else:
        fit = f"{'Fits' if peak.high <= room else 'Fits by the expected value, not by the high one'}: {needed}."
    run, dollars = plan.run_seconds, plan.dollars
    takes = f"Takes {as_time(run.expected)} ({as_time(run.low)} to {as_time(run.high)})"
    if dollars:
        takes += f" and {as_dollars(dollars.expected)} ({as_dollars(dollars.low)} to {as_dollars(dollars.high)})"
    return [fit, f"{takes}."]


def tables(plan: Plan) -> list[tuple[str, list[Row]]]:
    """Title and table of each part of the plan."""
    return [
        ("Parameters and operations, exact", _sizes(plan)),
        ("Memory of one device", _memory(plan)),
        ("Memory of one device by layout, at the same micro-batch", _layouts(plan)),
        ("Time, cost, energy, disk, data", _run(plan)),
        ("Compute-optimal size for the same operations, by published laws", _laws(plan)),
        ("Generation on one device, bf16", _inference(plan)),
    ]


def _sizes(plan: Plan) -> list[Row]:
    counts, flops = plan.architecture.parameters, plan.flops
    by_part = {"attention": flops.attention_matrices, "mlp": flops.mlp, "output matrix": flops.output_matrix}
    rows = [["component", "parameters", "FLOPs per token (training)"]]
    for name, count in counts.items():
        if count or name in by_part:
            shared = name == "output matrix" and not count
            rows.append([name, "the embedding's" if shared else f"{count:,}", as_count(by_part.get(name, 0))])
    rows.append(["scores, full square (PaLM)", "", as_count(flops.attention_square)])
    rows.append(["scores, causal half", "", as_count(flops.attention_causal)])
    rows.append(["total, PaLM's convention", f"{plan.architecture.num_parameters:,}", as_count(flops.palm)])
    rows.append(["total, causal convention", "", as_count(flops.causal)])
    return rows


def _memory(plan: Plan) -> list[Row]:
    memory = plan.memory
    parts = ("weights", "gradients", "optimizer", "activations", "logits", "buffers", "temporaries", "overhead")
    rows = [["component", "expected"], *([part, as_bytes(getattr(memory, part))] for part in parts)]
    peak = memory.peak
    rows.append([f"peak (in the {memory.phase})", as_bytes(peak.expected)])
    rows.append(["peak, low to high", f"{as_bytes(peak.low)} to {as_bytes(peak.high)}"])
    rows.append(["peak while loading", as_bytes(memory.loading)])
    rows.append(["peak while saving", as_bytes(memory.saving)])
    if memory.host:
        processes = min(plan.layout.devices, MACHINE)
        several = f" with {processes} devices" if processes > 1 else ""
        rows.append([f"main memory of a host{several}", as_bytes(processes * memory.host)])
    rows.append(["the device has", as_bytes(plan.layout.device.memory)])
    rows.append(["largest micro-batch that fits", f"{plan.micro_batch:,}"])
    return rows


def _layouts(plan: Plan) -> list[Row]:
    """The same model and micro-batch under every kind of layout, with and without activation checkpointing.

    With AdamW where a layout cannot run Muon.
    """
    count = plan.layout.devices if plan.layout.devices > 1 else 8
    device = plan.layout.device
    rows = [["layout", "states", "peak", "peak if recomputed"]]
    layouts = [Layout(device)] + [Layout(device, count, kind) for kind in ("ddp", "zero2", "zero3", "fsdp2")]
    for parallel in (2, 8):
        if count % parallel == 0 and indivisible(plan.architecture, parallel) is None:
            kind = "fsdp2" if count > parallel else "none"
            layouts.append(Layout(device, count, kind, tensor_parallel=parallel))
    if count > 8 and count % 8 == 0:
        layouts.append(Layout(device, count, "fsdp2", replicas=count // 8))
    for layout in layouts:
        shape = replace(plan.shape, optimizer="adamw") if layout.divides_matrices else plan.shape
        plain, recomputed = (
            peak_memory(plan.architecture, replace(shape, checkpointing=value), layout) for value in (False, True)
        )
        states = plain.weights + plain.optimizer + plain.gradients
        rows.append(
            [layout.describe(), *map(as_bytes, (states, plain.peak.expected, recomputed.peak.expected))]
        )
    return rows


def _run(plan: Plan) -> list[Row]:
    def row(name: str, estimate: Estimate | None, unit: Any) -> Row:
        if estimate is None:
            return [name, "", "unknown", ""]
        return [name, unit(estimate.low), unit(estimate.expected), unit(estimate.high)]

    exact = Estimate.exact
    return [
        ["", "low", "expected", "high"],
        row("one step", plan.step_seconds, as_time),
        row("tokens per second", plan.tokens_per_second, as_count),
        row("the run", plan.run_seconds, as_time),
        row("device-hours", plan.device_hours, three_digits),
        row("cost", plan.dollars, as_dollars),
        row("energy", plan.kilowatt_hours, lambda value: f"{three_digits(value)} kWh"),
        ["MFU, PaLM's convention", "", f"{plan.mfu_palm:.1%}", ""],
        ["MFU, causal convention", "", f"{plan.mfu_causal:.1%}", ""],
        row("one checkpoint", exact(plan.checkpoint_bytes), as_decimal_bytes),
        row("disk: checkpoints, model, shards", exact(plan.disk_bytes), as_decimal_bytes),
        row("text to read once", plan.text_bytes, as_decimal_bytes),
        row("scratch prepare, core-hours", plan.prepare_core_seconds / HOUR, three_digits),
    ]


def _laws(plan: Plan) -> list[Row]:
    budget = 6 * plan.architecture.num_parameters * plan.shape.tokens
    rows = [["law", "year", "parameters", "tokens", "tokens per parameter", "N counts"]]
    for law in LAWS:
        parameters, tokens = law.optimum(budget)
        name = law.name if law.checked else f"{law.name} (hint)"
        rows.append(
            [name, str(law.year), as_count(parameters), as_count(tokens), f"{tokens / parameters:.1f}", law.counts]
        )
    n, d = plan.architecture.num_parameters, plan.shape.tokens
    rows.append(["this plan", "", as_count(n), as_count(d), f"{d / n:.1f}", "all"])
    return rows


def _inference(plan: Plan) -> list[Row]:
    found = plan.inference
    rows = [["", "value"], ["weights", as_bytes(found.weights)]]
    rows.append(["cache per token", as_bytes(found.cache_per_token)])
    rows.append([f"cache of {found.context:,} tokens", as_bytes(found.cache)])
    rows += [[f"the same with {kind}", as_bytes(size)] for kind, size in found.caches.items()]
    if found.tokens_per_second is None:
        return [*rows, ["tokens per second", "the weights do not fit"]]
    speed = found.tokens_per_second
    rows.append(["tokens per second, one sequence", f"{speed.low:,.0f} to {speed.high:,.0f}"])
    rows.append([f"largest batch of {found.context:,} tokens", f"{found.largest_batch:,}"])
    if found.batch_tokens_per_second:
        speed = found.batch_tokens_per_second
        rows.append(["tokens per second, that batch", f"{speed.low:,.0f} to {speed.high:,.0f}"])
    return rows


def remarks(plan: Plan) -> list[str]:
    """Sentences below the tables: bounds, the source of the price, loss and rates by the laws, heads vLLM lacks."""
    lines = ["Low and high are the bounds of what is estimated; docs/planning.md has their sources."]
    if plan.prices:
        dates = sorted(price.date for price in plan.prices)
        hint = ", second-hand" if all(price.hint for price in plan.prices) else ""
        amounts = sorted(price.dollars for price in plan.prices)
        lines.append(
            f"Prices: ${amounts[0]:.2f} to ${amounts[-1]:.2f} per {plan.layout.device.name} and hour, read from "
            f"{dates[0]} to {dates[-1]}{hint}. They change within months; give your own with --price."
        )
    n, d = plan.architecture.num_parameters, plan.shape.tokens
    lines.append(
        f"Loss at this size and these tokens: {EPOCH.loss(n, d):.2f} nats per token by Epoch's fit, "
        f"{CHINCHILLA.loss(n, d):.2f} by Chinchilla's (their text and tokenizer, not yours)."
    )
    outside = n - plan.architecture.vocab_size * plan.architecture.hidden_size
    for advice in recommended(outside, d):
        lines.append(
            f"AdamW by {advice.name}: batch {as_count(advice.batch_tokens)} tokens, peak rate "
            f"{advice.learning_rate:.2g}."
        )
    note = head_size_note(plan.architecture.head_dim)
    return [*lines, note] if note else lines


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan as a mapping for JSON: all fields in SI units (bytes, seconds), and the laws."""
    values = asdict(plan)
    values["parameters"] = plan.architecture.parameters | {"total": plan.architecture.num_parameters}
    values["flops"] |= {"palm": plan.flops.palm, "causal": plan.flops.causal}
    values["tokens"], values["fits"] = plan.shape.tokens, plan.fits
    values["device_hours"] = asdict(plan.device_hours)
    budget = 6 * plan.architecture.num_parameters * plan.shape.tokens
    values["laws"] = [
        {"name": law.name, "year": law.year, "source": law.source, "error": law.error, "checked": law.checked}
        | dict(zip(("parameters", "tokens"), law.optimum(budget)))
        for law in LAWS
    ]
    return values
