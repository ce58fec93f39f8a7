"""Plan a training run before it starts: parameters, memory, time, cost, energy, disk and data.

    scratch plan recipes/quickstart                        a recipe folder, as it is
    scratch plan path/to/config.json "8 x H100"            any Llama, Qwen, Mistral, GPT-2, Gemma, ... on these devices
    scratch plan --preset qwen3 --model.hidden_size 768 --model.num_hidden_layers 12 ...
    scratch plan "1B"                                      a size; tokens, batch and device are chosen
    scratch plan "7B on 8 x H100"
    scratch plan "24 GB, 2 days, 50 dollars"               the best model for this memory, time and money
    scratch plan "1B on 8 x H100" --output_dir recipes/mine    writes a recipe for the plan; then: scratch run mine
    scratch plan --check runs/mine                         predicted against measured, also while the run is training

Nothing is downloaded or trained, and no weights are read. What cannot be known is given with bounds. At a keyboard the
command asks for what is missing.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from training.common.errors import UserError
from training.common.tables import as_text
from training.planner.architecture import Architecture
from training.planner.facts.devices import Market, read_market
from training.planner.layout import Shape
from training.planner.plan import Plan, make_plan
from training.planner.recipes.predictions import compare
from training.planner.recipes.writer import write_recipe
from training.planner.report import as_json, as_report, describe
from training.planner.requests.choice import Choices, choose
from training.planner.requests.curves import curves_of
from training.planner.requests.request import EXAMPLES, Request, read_request
from training.planner.requests.subject import read_subject, split_subject, with_options
from training.planner.units import as_bytes
from training.plots.plan import draw_plan
from training.stages.flags import parse
from training.stages.help import command_line
from training.stages.recipe import PathText, option, positional

SMALL = 50e6  # parameters, up to which a model without a device is planned for a CPU


@dataclass
class PlanConfig:
    """Options of `scratch plan`."""

    subject: list[str] = positional(
        f"recipe folder, config.json or request: {EXAMPLES}", list, many=True, metavar="SUBJECT"
    )
    preset: Literal["scratch", "llama", "qwen3", "gpt2"] | None = option(
        None, "architecture to plan (default: llama, or the recipe's)", group="Model"
    )
    model: dict = option(dict, "sizes and other ScratchConfig options, such as hidden_size: 256", group="Model")
    sequence_length: int | None = option(None, "tokens per sequence", at_least=1, group="Run")
    global_batch_size: int | None = option(None, "sequences per optimizer step", at_least=1, group="Run")
    per_device_train_batch_size: int | None = option(
        None, "sequences per device and forward pass (default: the largest power of two that fits)", at_least=1,
        group="Run",
    )
    max_steps: int | None = option(None, "optimizer steps", at_least=1, group="Run")
    optimizer: Literal["adamw", "muon"] | None = option(
        None, "optimizer (default: muon; adamw with ZeRO and tensor parallelism)", group="Run"
    )
    bf16: bool | None = option(None, "bfloat16 mixed precision (default: true)", group="Run")
    activation_checkpointing: bool | None = option(
        None, "recompute activations (default: only where nothing else fits)", group="Run"
    )
    attn_implementation: Literal["eager", "blockwise", "sdpa", "flex_attention", "flash_attention_2"] | None = option(
        None, "attention kernel (default: sdpa)", group="Run"
    )
    sharding: Literal["none", "ddp", "zero2", "zero3", "fsdp2"] | None = option(
        None, "how devices share the states (default: the first of ddp and fsdp2 that fits)", group="Devices"
    )
    tensor_parallel: int = option(1, "devices that share each matrix", at_least=1, group="Devices")
    replicas: int = option(1, "groups of devices with the same states", at_least=1, group="Devices")
    devices: PathText | None = option(None, "YAML file with devices and prices of your own", group="Devices")
    price: float | None = option(None, "US dollars per device and hour", at_least=0, group="Devices")
    calibrate: bool = option(
        False, "time one and two real layers on this machine for about five seconds, and predict from that",
        group="Output",
    )
    count: bool = option(
        False, "count the memory of a step on fake tensors, beside the formulas; takes seconds", group="Output"
    )
    plot: PathText | None = option(None, "image file to write: .png, .svg or .pdf", group="Output")
    json: bool = option(False, "print JSON", group="Output")
    output_dir: PathText | None = option(None, "folder to write, a recipe for the plan", group="Output")
    check: PathText | None = option(
        None, "output of a run with a written recipe, to compare its plan with what it measured", group="Output"
    )

    def __post_init__(self):
        if self.plot is not None:
            plot = Path(self.plot)
            if plot.suffix not in (".png", ".svg", ".pdf") or not plot.absolute().parent.is_dir():
                raise ValueError(f"'plot': {plot} is not a .png, .svg or .pdf file in an existing folder")


def main(arguments: list[str]) -> None:
    """Print the plan of a run.

    1. With `check`, print the table of predicted against measured, and return.
    2. Read the options, the devices and prices, and the subject; ask for what is missing at a keyboard.
    3. Choose what the request leaves open.
    4. Print the tables, or JSON; draw the plot; write the recipe if there is an `output_dir`.

    Raises:
        UserError: a subject or request that cannot be read, contradicts itself, or fits nowhere.
    """
    options = parse(PlanConfig, arguments, __doc__, recipe=False)
    if options.check:
        if options.subject:
            raise UserError("'check': the run has its own plan; leave out the subject")
        print(as_text(compare(Path(options.check))), end="")
        return
    market = read_market(Path(options.devices) if options.devices else None)
    plan = plan_of(options, market)
    if options.calibrate:
        plan = calibrated(plan, options.price, market)
    counted = counted_bytes(plan) if options.count else None
    if options.json:
        print(json.dumps(as_json(plan) | ({"counted_bytes": counted} if options.count else {}), indent=2))
    else:
        print(as_report(plan))
        if counted is not None:
            difference = plan.memory.allocated / counted - 1
            print(f"Counted on fake tensors: {as_bytes(counted)} of tensors at the peak; by formula {difference:+.1%}.")
    if options.plot:
        draw_plan(Path(options.plot), curves_of(plan, market), describe(plan).splitlines()[0])
        if not options.json:
            print(f"plan: wrote {options.plot}")
    if options.output_dir:
        files = write_recipe(plan, Path(options.output_dir))
        if not options.json:
            print(f"plan: wrote {options.output_dir} ({', '.join(files)})")
            print(f"next: {command_line('run', options.output_dir)}")


def calibrated(plan: Plan, price: float | None, market: Market) -> Plan:
    """The same plan with the time that this machine's layers take."""
    from training.planner.calibration import calibrate  # imports torch

    measured = calibrate(plan.architecture, plan.shape)
    return make_plan(
        plan.architecture, plan.shape, plan.layout, price=price, calibration=measured, market=market
    )


def counted_bytes(plan: Plan) -> int:
    """Peak bytes of tensors of the plan's micro-batch on one device without sharding, counted.

    Raises:
        UserError: the plan divides the model among devices.
    """
    if plan.layout.devices > 1:
        raise UserError("'count': only one device can be counted; leave the devices out, or count out")
    from training.planner.calibration import network_config
    from training.planner.count import count_peak  # imports torch

    return count_peak(network_config(plan.architecture), plan.shape)


def plan_of(options: PlanConfig, market: Market) -> Plan:
    """The plan that a command line asks for. Raises what `main` raises."""
    path, words = split_subject(options.subject)
    if path is None and not words and not (options.preset or options.model):
        path, words = _ask()
    choices = _choices(options, path)
    request = read_request(words, market) if words else Request()
    if request.device is None and request.memory_gb is None and choices.architecture is not None:
        if choices.architecture.num_parameters <= SMALL:
            request = Request(**(vars(request) | {"device": market.find("CPU")}))
    return choose(request, choices, market)


def _choices(options: PlanConfig, path: Path | None) -> Choices:
    architecture, shape, is_recipe = None, Shape(sequence_length=2048), False
    if path is not None:
        architecture, shape, is_recipe = read_subject(path)
        if options.preset or options.model:
            raise UserError("'preset': a recipe or config.json has its own sizes; leave preset and model out")
    elif options.model:
        architecture = Architecture.from_preset(options.preset or "llama", **_known(options.model))
        shape = Shape(sequence_length=architecture.max_position_embeddings)
    given = {
        "sequence_length": options.sequence_length,
        "global_batch": options.global_batch_size,
        "micro_batch": options.per_device_train_batch_size,
        "steps": options.max_steps,
        "optimizer": options.optimizer,
        "bf16": options.bf16,
        "checkpointing": options.activation_checkpointing,
        "attention": options.attn_implementation,
    }
    return Choices(
        architecture,
        with_options(shape, given),
        keeps_batch=is_recipe or options.per_device_train_batch_size is not None,
        keeps_optimizer=is_recipe or options.optimizer is not None,
        keeps_global_batch=is_recipe or options.global_batch_size is not None,
        keeps_steps=is_recipe or options.max_steps is not None,
        preset=options.preset or "llama",
        sharding=options.sharding,
        tensor_parallel=options.tensor_parallel,
        replicas=options.replicas,
        price=options.price,
    )


def _known(model: dict[str, Any]) -> dict[str, Any]:
    from training.common.errors import nearest
    from training.planner.architecture import OPTIONS

    for key in model:
        if key not in OPTIONS:
            raise UserError(f"'model.{key}': unknown; {nearest(str(key), OPTIONS)}")
    return model


def _ask() -> tuple[Path | None, str]:
    """Subject and request from the keyboard. Raises UserError: nobody is there to ask."""
    if not sys.stdin.isatty():
        raise UserError(f"'subject': name a recipe folder, a config.json, or a request such as {EXAMPLES}")
    subject = input("Model (a recipe folder, a config.json, or a size such as 1B): ").strip()
    devices = input("Devices (such as 8 x H100, 24 GB, or CPU; empty: chosen): ").strip()
    limits = input("Limits (such as 20B tokens, 2 days, 50 dollars; empty: none): ").strip()
    path, words = split_subject([subject] if subject else [])
    return path, ", ".join(part for part in (words, devices, limits) if part)
