"""From a request to a plan: what the request leaves open is chosen, what contradicts itself is rejected."""

import math
from dataclasses import dataclass, field, replace

from training.common.errors import UserError
from training.planner.architecture import Architecture
from training.planner.facts.devices import Device, Market, median_price
from training.planner.facts.laws import EPOCH
from training.planner.layout import Layout, Shape
from training.planner.memory import largest_micro_batch
from training.planner.plan import BESIDE_STEPS, Plan, check_fits, make_plan
from training.planner.requests.request import Request
from training.planner.sizes import architecture_of_size
from training.planner.speed import UTILISATION, Calibration, step_time
from training.planner.units import as_count, as_dollars, as_time
from training.pretraining.config import largest_divisor, next_multiple

TOKENS_PER_PARAMETER = 20  # where neither tokens nor time are given: about Epoch's correction of Chinchilla
DEFAULT_DEVICE = "H100 SXM"
GPUS_PER_MACHINE = 8
SMALLEST_MODEL, LARGEST_MODEL = 1e6, 2e12
SMALLEST_STATES = 8  # bytes a parameter that training needs at the very least, on all devices together
MOST_AT_ONCE = 64  # sequences per device and forward pass; more is no faster


@dataclass
class Choices:
    """Parts of a plan that the command line or a recipe gives, beside the request; None: to be chosen.

    Attributes:
        architecture: the model, from a recipe, a preset or a config.json.
        shape: batch, precision, optimizer and so on.
        keeps_batch: whether `shape.micro_batch` and `shape.checkpointing` are the user's, and are not adjusted.
        keeps_steps: whether `shape.steps` and `shape.global_batch` are the user's.
        sharding, tensor_parallel, replicas: of the layout.
        price: US dollars per device and hour.
    """

    architecture: Architecture | None = None
    shape: Shape = field(default_factory=Shape)
    keeps_batch: bool = False
    keeps_steps: bool = False
    preset: str = "llama"
    vocab_size: int | None = None
    sharding: str | None = None
    tensor_parallel: int = 1
    replicas: int = 1
    price: float | None = None
    calibration: Calibration | None = None


def choose(request: Request, choices: Choices, market: Market) -> Plan:
    """The plan that answers a request.

    Raises:
        UserError: the request contradicts itself, or nothing fits; says what would be possible.
    """
    devices = candidates(request, market)
    if choices.architecture is None and request.parameters is None:
        plans = [_best_model(request, choices, market, device) for device in devices]
        possible = [plan for plan in plans if plan is not None]
        if not possible:
            raise UserError(
                "'request': time and money do not suffice for a model of 1M parameters on any device; raise one of them"
            )
        return min(possible, key=expected_loss)
    architecture = choices.architecture or architecture_of_size(
        request.parameters, choices.preset, choices.vocab_size
    )
    plan = _plan_on(architecture, request, choices, market, devices[0])
    check_fits(plan)
    _check_limits(plan, request, choices, market)
    return plan


def expected_loss(plan: Plan) -> float:
    """Nats per token by Epoch's fit, for comparing plans."""
    return EPOCH.loss(plan.architecture.num_parameters, plan.shape.tokens)


def candidates(request: Request, market: Market) -> list[Device]:
    """The devices that a request may mean: the one it names, or all with the memory that it names.

    Raises:
        UserError: no known device has so much memory.
    """
    if request.device is not None:
        return [request.device]
    if request.memory_gb is None:
        return [market.find(DEFAULT_DEVICE)]
    alike = [device for device in market.devices if abs(device.memory_gb - request.memory_gb) < 0.5]
    if request.dollars is not None:
        alike = [device for device in alike if market.prices_of(device)]
    if not alike:
        nearest = sorted(market.devices, key=lambda device: abs(device.memory_gb - request.memory_gb))[:3]
        names = ", ".join(f"{device.name} ({device.memory_gb:g} GB)" for device in nearest)
        raise UserError(
            f"'request': no device of {request.memory_gb:g} GB{' has a price' if request.dollars else ' is known'}; "
            f"name one, such as {names}"
        )
    return sorted(alike, key=lambda device: -device.teraflops)


def _plan_on(
    architecture: Architecture, request: Request, choices: Choices, market: Market, device: Device
) -> Plan:
    """The plan of a model on a device: layout, micro-batch and steps chosen where they are open."""
    shape, layout = place(architecture, request, choices, device)
    if not choices.keeps_steps:
        tokens = request.tokens or _tokens_possible(architecture, shape, layout, request, choices, market)
        batch = sequences_per_step(tokens, shape, layout)
        shape = replace(shape, global_batch=batch)
        shape = replace(shape, steps=max(1, math.ceil(tokens / shape.tokens_per_step)))
    elif request.tokens:
        shape = replace(shape, steps=max(1, math.ceil(request.tokens / shape.tokens_per_step)))
    return make_plan(
        architecture, shape, layout, price=choices.price, calibration=choices.calibration, market=market
    )


def place(architecture: Architecture, request: Request, choices: Choices, device: Device) -> tuple[Shape, Layout]:
    """The cheapest layout that fits: DDP, then FSDP2, then with tensor parallelism; each without checkpointing first.

    A layout of the user's is kept, and so is his micro-batch. Without a number of devices, one, or as many whole
    machines as the model needs. If nothing fits, the layout that needs the least.
    """
    shape = choices.shape
    counts = [request.devices or 1]
    if request.devices is None and not device.cpu:
        counts += [GPUS_PER_MACHINE * 2**power for power in range(9)]
    last = None
    for count in counts:
        for layout in _layouts(device, count, choices):
            for checkpointing in (False, True):
                tried = shape if choices.keeps_batch else replace(shape, checkpointing=checkpointing)
                if choices.keeps_steps:
                    tried = replace(tried, micro_batch=_share(shape, layout))
                most = largest_micro_batch(architecture, tried, layout)
                last = tried, layout
                if choices.keeps_batch and most >= tried.micro_batch:
                    return tried, layout
                if not choices.keeps_batch and most:
                    return replace(tried, micro_batch=_power_of_two_below(min(most, MOST_AT_ONCE))), layout
    return last


def _share(shape: Shape, layout: Layout) -> int:
    """The micro-batch, or the largest smaller one by which the devices can share a batch that is the user's.

    Raises:
        UserError: the batch has no equal share for each device.
    """
    groups = layout.data_parallel
    if shape.global_batch % groups:
        raise UserError(
            f"'global_batch_size': {shape.global_batch} is not a multiple of the {groups} devices that read data; set "
            f"it to {next_multiple(shape.global_batch, groups)}"
        )
    return largest_divisor(shape.global_batch // groups, shape.micro_batch)


def _layouts(device: Device, count: int, choices: Choices) -> list[Layout]:
    if choices.sharding:
        return [Layout(device, count, choices.sharding, choices.tensor_parallel, choices.replicas)]
    if count == choices.tensor_parallel:
        return [Layout(device, count, "none", choices.tensor_parallel)]
    layouts = [Layout(device, count, kind, choices.tensor_parallel) for kind in ("ddp", "fsdp2")]
    if choices.tensor_parallel == 1 and count % GPUS_PER_MACHINE == 0:
        layouts.append(Layout(device, count, "fsdp2", GPUS_PER_MACHINE))
    return layouts


def _power_of_two_below(number: int) -> int:
    return 2 ** (number.bit_length() - 1)


def sequences_per_step(tokens: float, shape: Shape, layout: Layout) -> int:
    """Sequences of a global batch for a run of so many tokens: 0.5M tokens at 2.5B, growing as the 0.383th power
    (Power Lines, https://arxiv.org/abs/2505.13738), a multiple of what the devices run at once."""
    best = 2**19 * (tokens / 2.5e9) ** 0.383
    unit = shape.micro_batch * layout.data_parallel
    sequences = 2 ** round(math.log2(max(1.0, best / shape.sequence_length)))
    return max(1, round(sequences / unit)) * unit


def _tokens_possible(
    architecture: Architecture, shape: Shape, layout: Layout, request: Request, choices: Choices, market: Market
) -> float:
    """Tokens that the time and the money allow, at the expected speed; without limits 20 a parameter."""
    seconds = _seconds_allowed(layout, request, choices, market)
    if seconds is None:
        return TOKENS_PER_PARAMETER * architecture.num_parameters
    return max(1.0, seconds * _tokens_per_second(architecture, shape, layout, choices))


def _tokens_per_second(architecture: Architecture, shape: Shape, layout: Layout, choices: Choices) -> float:
    """Tokens per second of the whole run, with what happens beside the steps."""
    # With a batch as large as the devices need to be busy: the optimizer's share is then small, as in real runs.
    unit = shape.micro_batch * layout.data_parallel
    large = replace(shape, global_batch=max(unit, round(2**19 / shape.sequence_length / unit) * unit))
    step = step_time(architecture, large, layout, choices.calibration)
    return large.tokens_per_step / (step.expected * BESIDE_STEPS.expected)


def _seconds_allowed(layout: Layout, request: Request, choices: Choices, market: Market) -> float | None:
    limits = [request.seconds] if request.seconds else []
    if request.dollars:
        price = _price(layout.device, choices, market)
        limits.append(request.dollars / (price * layout.devices) * 3600 if price else math.inf)
    return min(limits, default=None)


def _price(device: Device, choices: Choices, market: Market) -> float:
    if choices.price is not None:
        return choices.price
    prices = market.prices_of(device)
    if not prices:
        raise UserError(f"'price': none is known for {device.name}; give --price DOLLARS per device and hour")
    return median_price(prices)


def _best_model(request: Request, choices: Choices, market: Market, device: Device) -> Plan | None:
    """The model with the lowest expected loss that fits in memory, time and money; None if even the smallest fails."""
    asked = request if request.devices else replace(request, devices=1)
    layout = Layout(device, asked.devices, "fsdp2" if asked.devices > 1 else "none")
    seconds = _seconds_allowed(layout, asked, choices, market)
    budget = math.inf if seconds is None else seconds * asked.devices * device.rate * UTILISATION.expected
    optimum = min(LARGEST_MODEL, EPOCH.optimum(budget)[0] if budget < math.inf else LARGEST_MODEL)
    best = None
    parameters = min(2 * optimum, asked.devices * device.memory / SMALLEST_STATES)
    while parameters >= SMALLEST_MODEL:  # downwards: past the optimum every smaller model is worse
        architecture = architecture_of_size(parameters, choices.preset, choices.vocab_size)
        plan = _plan_on(architecture, asked, choices, market, device)
        if plan.fits and plan.shape.steps > 1:
            if best is not None and expected_loss(plan) > expected_loss(best):
                break
            best = plan
        parameters /= 1.25
    return best


def _check_limits(plan: Plan, request: Request, choices: Choices, market: Market) -> None:
    """Raise UserError if time or money do not suffice for the tokens requested, with what would be possible."""
    tokens_are_fixed = request.tokens is not None or choices.keeps_steps
    if not tokens_are_fixed:
        return
    over = []
    if request.seconds and plan.run_seconds.expected > 1.02 * request.seconds:
        over.append((f"{as_time(plan.run_seconds.expected)}, not {as_time(request.seconds)}", request.seconds))
    if request.dollars and plan.dollars and plan.dollars.expected > 1.02 * request.dollars:
        spent = f"{as_dollars(plan.dollars.expected)}, not {as_dollars(request.dollars)}"
        over.append((spent, plan.run_seconds.expected * request.dollars / plan.dollars.expected))
    if not over:
        return
    allowed = min(seconds for _, seconds in over)
    share = allowed / plan.run_seconds.expected
    devices = math.ceil(plan.layout.devices / share)
    instead = f"{as_count(plan.shape.tokens * share)} tokens"
    if all(name.endswith(as_time(request.seconds)) if request.seconds else False for name, _ in over):
        instead += f", or {devices} x {plan.layout.device.name}"
    smaller = plan.architecture.num_parameters * share
    raise UserError(
        f"'request': {plan.architecture.name} on {as_count(plan.shape.tokens)} tokens takes "
        f"{' and '.join(text for text, _ in over)}; possible: {instead}, or a model of {as_count(smaller)} parameters"
    )
