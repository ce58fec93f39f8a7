"""A plan: what a training run needs in memory, time, money, energy, disk and data, from sizes and devices alone."""

import math
from dataclasses import dataclass, replace

from training.common.errors import UserError
from training.planner.architecture import Architecture
from training.planner.facts.devices import Market, Price, median_price, read_market
from training.planner.flops import Flops, flops_per_token
from training.planner.inference import Inference, plan_inference
from training.planner.layout import Layout, Shape
from training.planner.memory import Memory, largest_micro_batch, peak_memory
from training.planner.speed import Calibration, step_time
from training.planner.units import HOUR, Estimate

CHECKPOINTS_KEPT = 2  # `keep_last` of the pretraining recipe
# Validations, checkpoints and restarts, as a factor on the time of the steps.
BESIDE_STEPS = Estimate(1.0, 1.03, 1.10)
POWER = Estimate(0.6, 0.8, 1.0)  # of the thermal design power, while training
PUE = Estimate(1.1, 1.25, 1.5)  # power of the data centre over that of its computers
# Bytes of text per token of a byte-level BPE tokenizer, by rows of its vocabulary; English and code.
BYTES_PER_TOKEN = ((2048, 3.0), (8192, 3.7), (32768, 4.2), (131072, 4.5))
PREPARE_RATE = 2.3e6  # bytes of text per second and core of `scratch prepare`; docs/data.md, "Speed"


@dataclass(frozen=True)
class Plan:
    """All that `scratch plan` predicts about one run.

    Attributes:
        architecture, shape, layout: what is planned.
        flops: per token.
        memory: per device.
        micro_batch: largest that fits; 0 if none does.
        remedy: the first change that would make it fit; empty if it fits.
        step_seconds: of an optimizer step.
        run_seconds: of the run, with validations and checkpoints.
        tokens_per_second: of all devices together.
        mfu_palm, mfu_causal: utilisation that the expected time amounts to, by both conventions.
        dollars: None without a price.
        prices: rows of the dated table that `dollars` comes from; empty if the price was given.
        kilowatt_hours: None if the device's power is unknown.
        checkpoint_bytes, disk_bytes: one checkpoint; and all that the run keeps, token shards included.
        text_bytes: text that tokenizes to the tokens of the run, read once.
        prepare_core_seconds: of `scratch prepare` for this text, on one core.
        inference: generation on one device, at the architecture's longest context.
    """

    architecture: Architecture
    shape: Shape
    layout: Layout
    flops: Flops
    memory: Memory
    micro_batch: int
    remedy: str
    step_seconds: Estimate
    run_seconds: Estimate
    tokens_per_second: Estimate
    mfu_palm: float
    mfu_causal: float
    dollars: Estimate | None
    prices: tuple[Price, ...]
    kilowatt_hours: Estimate | None
    checkpoint_bytes: float
    disk_bytes: float
    text_bytes: Estimate
    prepare_core_seconds: Estimate
    inference: Inference

    @property
    def fits(self) -> bool:
        """Whether the expected peaks of steps, loading and saving fit into a device."""
        return self.memory.needed <= self.layout.device.memory

    @property
    def device_hours(self) -> Estimate:
        """Hours of the run times devices."""
        return self.run_seconds * (self.layout.devices / HOUR)


def make_plan(
    architecture: Architecture,
    shape: Shape,
    layout: Layout,
    *,
    price: float | None = None,
    calibration: Calibration | None = None,
    market: Market | None = None,
) -> Plan:
    """Predict a run.

    Args:
        price: US dollars per device-hour; None: the range and median of the dated table, if it has the device.
        calibration: measured on the machine that will train; None: the utilisation of published runs.
        market: devices and prices; None: the shipped tables.
    """
    step = step_time(architecture, shape, layout, calibration)
    run = Estimate(*(shape.steps * a * b for a, b in zip(_bounds(step), _bounds(BESIDE_STEPS))))
    flops = flops_per_token(architecture, shape.sequence_length)
    rate = shape.tokens_per_step / step.expected
    peak = layout.devices * layout.device.rate
    rows = () if price is not None else tuple((market or read_market()).prices_of(layout.device))
    hours = run * (layout.devices / HOUR)
    weights, optimizer = 4 * architecture.num_parameters, optimizer_bytes(architecture, shape)
    tokens = 4 if architecture.vocab_size > 2**16 else 2  # bytes in a shard
    text = bytes_per_token(architecture.vocab_size) * shape.tokens
    return Plan(
        architecture,
        shape,
        layout,
        flops,
        memory=peak_memory(architecture, shape, layout),
        micro_batch=largest_micro_batch(architecture, shape, layout),
        remedy=first_remedy(architecture, shape, layout),
        step_seconds=step,
        run_seconds=run,
        tokens_per_second=Estimate(*(shape.tokens_per_step / value for value in reversed(_bounds(step)))),
        mfu_palm=rate * flops.palm / peak,
        mfu_causal=rate * flops.causal / peak,
        dollars=_dollars(hours, price, rows),
        prices=rows,
        kilowatt_hours=_energy(hours, layout.device.watts),
        checkpoint_bytes=weights + optimizer,
        disk_bytes=CHECKPOINTS_KEPT * (weights + optimizer) + weights + tokens * shape.tokens,
        text_bytes=text,
        prepare_core_seconds=text / PREPARE_RATE,
        inference=plan_inference(architecture, layout.device, architecture.max_position_embeddings),
    )


def optimizer_bytes(architecture: Architecture, shape: Shape) -> float:
    """Bytes of the optimizer's moments in a checkpoint: two of fp32, or one for Muon's matrices."""
    return 8 * architecture.num_parameters - (4 * architecture.layer_matrices if shape.optimizer == "muon" else 0)


def bytes_per_token(vocab_size: int) -> Estimate:
    """Bytes of text per token, interpolated by the size of the vocabulary."""
    points = [(math.log(size), value) for size, value in BYTES_PER_TOKEN]
    at = min(max(math.log(vocab_size), points[0][0]), points[-1][0])
    (left, low), (right, high) = next(pair for pair in zip(points, points[1:]) if at <= pair[1][0])
    expected = low + (high - low) * (at - left) / (right - left)
    return Estimate(expected * 0.8, expected, expected * 1.15)


def first_remedy(architecture: Architecture, shape: Shape, layout: Layout) -> str:
    """The first change, in the order of what it costs, that makes the run fit; empty if it fits as it is."""

    def fits(changed: Shape, placed: Layout) -> bool:
        return peak_memory(architecture, changed, placed).needed <= placed.device.memory

    if fits(shape, layout):
        return ""
    most = largest_micro_batch(architecture, shape, layout)
    if most:
        return f"set per_device_train_batch_size to {most}"
    one = replace(shape, micro_batch=1)
    without_logits = replace(one, chunked_loss=True)
    recomputed = replace(without_logits, checkpointing=True)
    if not (shape.chunked_loss or layout.computes_logits) and fits(without_logits, layout):
        return "use the loss without logits, with per_device_train_batch_size 1"
    if fits(recomputed, layout):
        most = largest_micro_batch(architecture, recomputed, layout)
        return f"set activation_checkpointing to true, with per_device_train_batch_size {most}"
    devices = max(2, layout.devices)
    while devices <= 4096:
        for parallel in (1, 8):
            if devices % parallel:
                continue
            sharded = Layout(layout.device, devices, "fsdp2", tensor_parallel=parallel)
            if fits(recomputed, sharded):
                return f"train on {sharded.describe()}, with activation_checkpointing"
        devices *= 2
    return ""


def check_fits(plan: Plan) -> None:
    """Raise UserError if the run fits nowhere, with what would be needed."""
    if plan.fits or plan.remedy:
        return
    needed = plan.memory.needed / 2**30
    moment = "to load" if plan.memory.needed == plan.memory.loading else "at its peak"
    raise UserError(
        f"'devices': {plan.architecture.name} needs {needed:,.0f} GiB {moment} on each {plan.layout.device.name} "
        f"({plan.layout.device.memory_gb:g} GiB), and no layout of up to 4,096 makes it fit; plan a smaller model or "
        "sequence_length"
    )


def _bounds(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.low, estimate.expected, estimate.high


def _dollars(hours: Estimate, price: float | None, rows: tuple[Price, ...]) -> Estimate | None:
    if price is not None:
        return hours * price
    if not rows:
        return None
    prices = [row.dollars for row in rows]
    return Estimate(hours.low * min(prices), hours.expected * median_price(list(rows)), hours.high * max(prices))


def _energy(hours: Estimate, watts: float | None) -> Estimate | None:
    if watts is None:
        return None
    return Estimate(*(h * watts / 1000 * p * q for h, p, q in zip(_bounds(hours), _bounds(POWER), _bounds(PUE))))
