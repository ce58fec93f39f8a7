"""A plan: what a training run needs in memory, time, money, energy, disk and data, from sizes and devices alone."""

from dataclasses import dataclass

from training.planner.architecture import Architecture
from training.planner.flops import Flops
from training.planner.layout import Layout, Shape
from training.planner.memory import Memory
from training.planner.speed import Calibration
from training.planner.units import Estimate


@dataclass(frozen=True)
class Plan:
    """All that `scratch plan` predicts about one run.

    Attributes:
        architecture, shape, layout: what is planned.
        flops: per token.
        memory: per device.
        micro_batch: largest that fits; 0 if none does.
        remedy: the first change that would make it fit, empty if it fits.
        step_seconds: of an optimizer step.
        run_seconds: of the run, checkpoints included.
        tokens_per_second: of all devices together.
        mfu_palm, mfu_causal: utilisation that the expected time amounts to.
        dollars: None without a price.
        kilowatt_hours: at the devices' thermal design power and the data centre's overhead.
        checkpoint_bytes, disk_bytes: one checkpoint, and all that the run keeps.
        text_bytes: text that tokenizes to the tokens needed; `prepare_seconds` of `scratch prepare` for it.
        notes: remarks on assumptions, one sentence each.
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
    kilowatt_hours: Estimate | None
    checkpoint_bytes: int
    disk_bytes: int
    text_bytes: Estimate
    prepare_seconds: Estimate
    notes: tuple[str, ...] = ()


def make_plan(
    architecture: Architecture,
    shape: Shape,
    layout: Layout,
    *,
    price: float | None = None,
    calibration: Calibration | None = None,
) -> Plan:
    """Predict a run.

    Args:
        price: US dollars per device-hour; None: from the dated table, if it has one.
        calibration: measured on the machine that will train; None: published utilisations.
    """
    raise NotImplementedError
