"""Curves around a plan: memory by context and batch, loss by budget, cost and time by device."""

from dataclasses import replace

from training.planner.facts.devices import Market, median_price
from training.planner.facts.laws import CHINCHILLA, EPOCH
from training.planner.layout import Layout
from training.planner.memory import largest_micro_batch, peak_memory
from training.planner.plan import BESIDE_STEPS, Plan
from training.planner.speed import step_time
from training.planner.units import DAY, HOUR
from training.plots.plan import PlanCurves

COUNTS = (1, 8, 64, 512)  # devices


def curves_of(plan: Plan, market: Market) -> PlanCurves:
    """The curves that `training.plots.plan` draws."""
    budget = 6 * plan.architecture.num_parameters * plan.shape.tokens
    return PlanCurves(
        memory=_memory(plan),
        room=plan.layout.device.memory / 2**30,
        losses=_losses(plan, budget),
        budget=budget,
        loss=EPOCH.loss(plan.architecture.num_parameters, plan.shape.tokens),
        costs=_costs(plan, market),
        days=plan.run_seconds.expected / DAY,
        dollars=plan.dollars.expected if plan.dollars else None,
    )


def _memory(plan: Plan) -> dict[str, tuple[list[float], list[float]]]:
    lengths = [2**power for power in range(7, 18)]
    curves = {}
    for size in (1, 4, 16, 64):
        shapes = [replace(plan.shape, micro_batch=size, sequence_length=length) for length in lengths]
        peaks = [peak_memory(plan.architecture, shape, plan.layout).peak.expected / 2**30 for shape in shapes]
        curves[f"{size} sequence{'s' if size > 1 else ''} at once"] = (lengths, peaks)
    return curves


def _losses(plan: Plan, budget: float) -> dict[str, tuple[list[float], list[float]]]:
    budgets = [budget * 10 ** (step / 4) for step in range(-8, 9)]
    parameters = plan.architecture.num_parameters
    return {
        "optimum, Epoch's fit": (budgets, [EPOCH.loss(*EPOCH.optimum(value)) for value in budgets]),
        "optimum, Chinchilla's fit": (budgets, [CHINCHILLA.loss(*CHINCHILLA.optimum(value)) for value in budgets]),
        "this size, Epoch's fit": (budgets, [EPOCH.loss(parameters, value / 6 / parameters) for value in budgets]),
    }


def _costs(plan: Plan, market: Market) -> dict[str, tuple[list[float], list[float]]]:
    """Days and dollars of the run on each priced device, for every count on which it fits."""
    curves = {}
    for device in market.devices:
        prices = market.prices_of(device)
        points = []
        for count in COUNTS if prices else ():
            layout = Layout(device, count, "fsdp2" if count > 1 else "none")
            most = largest_micro_batch(plan.architecture, plan.shape, layout)
            if not most:
                continue
            shape = replace(plan.shape, micro_batch=min(most, plan.shape.micro_batch))
            seconds = plan.shape.steps * step_time(plan.architecture, shape, layout).expected * BESIDE_STEPS.expected
            points.append((seconds / DAY, seconds / HOUR * count * median_price(prices)))
        if points:
            curves[device.name] = ([days for days, _ in points], [dollars for _, dollars in points])
    return curves
