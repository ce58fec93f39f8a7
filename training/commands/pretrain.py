"""Pretrain a language model from random weights on the token shards of `scratch prepare`.

One process: scratch pretrain --config recipes/quickstart/pretrain.yaml
Several:     accelerate launch --config_file recipes/accelerate/ddp.yaml -m training pretrain --config RECIPE

After an interruption, the same command resumes from the newest checkpoint, bit for bit. With more max_steps, a finished
run continues from the last checkpoint before its learning rates decayed. Exit codes: 0 when the run is finished; 2 for
a mistake in the recipe; 1 for a failure of the machine, such as a full disk; 130 after Ctrl-C and 143 after SIGTERM,
both with a checkpoint of the last step, so that a scheduler can restart the run.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.common.metrics import METRICS, median_rate, read_metrics
from training.common.processes import end_training, local_rank
from training.common.shipped import with_shipped
from training.common.signals import Interrupted
from training.data.shards import check_hashes, check_tokenizer, read_manifest
from training.insight.record import INSIGHT
from training.planner.recipes.predictions import PLAN
from training.pretraining.checkpoint import Continuation, find_continuation
from training.pretraining.config import RUNTIME_KEYS, PretrainConfig
from training.stages.checkpoints import CHECKPOINTS, read_checkpoints
from training.stages.flags import read_arguments, recipe_file
from training.stages.help import command_line
from training.stages.provenance import check_stage, digest
from training.stages.recipe import build
from training.stages.stage import Stage

# What is imported inside functions takes seconds, which `--help` and an up-to-date run need not wait for.
if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from training.pretraining.loop import Pretrainer

CONFIG = PretrainConfig


def main(arguments: list[str]) -> None:
    """Pretrain as the recipe says.

    1. Read the recipe, check that its inputs are there, derive what follows from `depth`.
    2. Return if the output is up to date; reject a run of another recipe, finished or not. Find the checkpoints that a
       finished run with fewer steps has in common with this one.
    3. Open the tokenizer, check that the shards are its own and match their checksums.
    4. Build accelerator, model, optimizer and data loaders.
    5. Resume from the newest checkpoint, if there is one, also of the finished run; describe the run.
    6. Train.
    7. Export the model, plot the losses, write the provenance.

    Raises:
        UserError: a mistake in the recipe or its inputs, or a loss that is not finite.
        Interrupted: a signal stopped the run, with its last step saved.
    """
    given, where = read_arguments(PretrainConfig, arguments, __doc__, resolve=resolve)
    config = build(PretrainConfig, given, where)
    check_inputs(config)
    rules: list[str] = []
    if config.depth is not None:
        config, rules = derive(config, given, where)
    digests = inputs(config)
    continuation = find_continuation(config, digests)
    stage = open_stage(config, digests, continuation, arguments)
    if stage.is_current():
        return
    tokenizer = open_tokenizer(config)
    check_shards(config, stage)
    pretrainer = build_pretrainer(keep_uncompiled(config, stage, continuation), stage, tokenizer)
    start(pretrainer, stage, continuation)
    describe(pretrainer, rules)
    train(pretrainer, stage)
    finish(pretrainer, stage)


def resolve(config: PretrainConfig, given: dict[str, Any], where: str) -> PretrainConfig:
    """The recipe with all keys derived from `depth`, for `--print_config`."""
    return config if config.depth is None else derive(config, given, where)[0]


def check_inputs(config: PretrainConfig) -> None:
    """Reject inputs that are missing, come from another stage or are no shards. Raises UserError."""
    for folder in config.mixture.folders:
        check_stage(folder, "prepare", key="data")
        read_manifest(folder)  # else a folder of other things would be hashed first
    check_stage(config.tokenizer, "tokenizer", key="tokenizer")


def derive(config: PretrainConfig, given: dict[str, Any], where: str) -> tuple[PretrainConfig, list[str]]:
    """The recipe with all keys derived from `depth`, and a line for each of them."""
    from training.pretraining.scaling import derive_from_depth

    return derive_from_depth(config, given, open_tokenizer(config), where)


def open_tokenizer(config: PretrainConfig) -> "PreTrainedTokenizerFast":
    """The tokenizer. Raises UserError: it is damaged."""
    from training.model_io.tokenizers import open_tokenizer

    return open_tokenizer(config.tokenizer, "tokenizer")


def inputs(config: PretrainConfig) -> dict[str, str]:
    """Digests of the tokenizer and of every folder of shards. Raises UserError: one is missing."""
    key = "data" if isinstance(config.data, str) and not config.curriculum else "data.{}"
    digests = {key.format(folder): digest(folder, "data") for folder in config.mixture.folders}
    return digests | {"tokenizer": digest(config.tokenizer, "tokenizer")}


def open_stage(
    config: PretrainConfig, digests: dict[str, str], continuation: Continuation, arguments: list[str]
) -> Stage:
    """The stage, identified by its recipe, its tokenizer and every folder of shards."""
    keeps, obstacle = continuation.describe(), continuation.obstacle
    return Stage("pretrain", config.output_dir, config, digests, arguments, RUNTIME_KEYS, keeps, obstacle)


def check_shards(config: PretrainConfig, stage: Stage) -> None:
    """Reject shards of another tokenizer and, where the run starts, shards that do not match their checksums.

    The checksums need all data read: once per run and machine, before the processes meet and wait for each other.
    """
    for folder in config.mixture.folders:
        check_tokenizer(folder, config.tokenizer)
    if local_rank() == 0 and not stage.folder.exists():
        for folder in config.mixture.folders:
            check_hashes(folder)


def keep_uncompiled(config: PretrainConfig, stage: Stage, continuation: Continuation) -> PretrainConfig:
    """The recipe, with an unset `torch_compile` set to false if the run goes on from an uncompiled checkpoint.

    With more steps compiling may save time, but it changes the last bits.
    """
    own = read_checkpoints(stage.folder / CHECKPOINTS) if stage.resumes() else []
    newest = None if stage.restart else continuation.newest(own)
    if config.torch_compile is None and newest and not newest.progress["compiled"]:
        return dataclasses.replace(config, torch_compile=False)
    return config


def build_pretrainer(config: PretrainConfig, stage: Stage, tokenizer: "PreTrainedTokenizerFast") -> "Pretrainer":
    """Accelerator, model, optimizer and data loaders. Writes nothing, so that a mistake leaves no trace."""
    from training.pretraining.accelerator import build_accelerator
    from training.pretraining.loop import Pretrainer

    return Pretrainer(config, stage.folder, tokenizer, build_accelerator(config))


def start(pretrainer: "Pretrainer", stage: Stage, continuation: Continuation) -> None:
    """Open the working folder and the trackers, and resume from the newest checkpoint.

    With `--restart`, this discards the checkpoints of an earlier run. The recipe is known to be right by now.
    """
    from training.pretraining.trackers import start_trackers

    config, accelerator = pretrainer.config, pretrainer.accelerator
    if accelerator.is_main_process:
        folder = stage.begin()
        if not stage.restart:
            stage.seconds_before += continuation.copy_to(folder)
        copy_predictions(stage)
    accelerator.wait_for_everyone()
    pretrainer.resume()
    start_trackers(accelerator, config.output_dir, stage.folder, dataclasses.asdict(config), pretrainer.step)


def copy_predictions(stage: Stage) -> None:
    """Copy the predictions that `scratch plan` wrote beside the recipe, for `scratch plan --check`."""
    recipe = recipe_file(stage.arguments)
    if recipe and (file := with_shipped(Path(recipe).with_name(PLAN))).is_file():
        shutil.copyfile(file, stage.folder / PLAN)


def describe(pretrainer: "Pretrainer", rules: list[str]) -> None:
    """Print the size of the run, its device and its mixture.

    Args:
        rules: a line for each key derived from `depth`.
    """
    config, accelerator, data = pretrainer.config, pretrainer.accelerator, pretrainer.training_data
    if rules:
        accelerator.print("\n".join([f"pretrain: depth {config.depth}", *rules]))
    accelerator.print(
        f"pretrain: {pretrainer.num_parameters / 1e6:.1f}M parameters; {pretrainer.num_tokens / 1e6:.1f}M tokens of "
        f"{data.num_tokens / 1e6:.1f}M in the shards ({config.packing}, "
        f"{data.utilisation:.1%} of the positions scored); {accelerator.num_processes} x {accelerator.device}, "
        f"precision {accelerator.mixed_precision}, {'compiled, ' * pretrainer.compiled}"
        f"batches of {config.global_batch_size} sequences, {pretrainer.at_once} at once in each process "
        f"({accelerator.gradient_accumulation_steps} accumulation steps); "
        f"matrix products at {pretrainer.throughput.rate / 1e9:,.0f} GFLOP/s, the reference of MFU"
    )
    accelerator.print(f"pretrain: {command_line('watch', config.output_dir)} shows this run in another terminal")
    if len(config.mixture.folders) > 1:
        accelerator.print(data.describe(config.max_steps))
    if config.curriculum:
        accelerator.print(config.mixture.describe())


def train(pretrainer: "Pretrainer", stage: Stage) -> None:
    """Train to the last step. A run that a signal stops flushes its trackers first."""
    try:
        pretrainer.train(stage)
    except Interrupted:
        end_training(pretrainer.accelerator)
        raise


def finish(pretrainer: "Pretrainer", stage: Stage) -> None:
    """Export the model, plot the losses, write the provenance and put the output in place."""
    from training.common.device import peak_memory
    from training.plots.losses import plot_losses
    from training.pretraining.state import export_model

    config, accelerator = pretrainer.config, pretrainer.accelerator
    memory = peak_memory(accelerator.device)
    export_model(accelerator, pretrainer.model, config.tokenizer, stage.folder)
    end_training(accelerator)
    if not accelerator.is_main_process:
        return
    records = read_metrics(stage.folder / METRICS)
    drawn = plot_losses(records, stage.folder / "loss.png", f"{pretrainer.num_parameters / 1e6:.1f}M parameters")
    metrics = {
        "parameters": pretrainer.num_parameters,
        "tokens": pretrainer.num_tokens,
        "validation_loss": pretrainer.validation_loss,
        "tokens_per_second": median_rate(records),
        "peak_memory_bytes": memory,
    }
    made = {"profile": config.profile, INSIGHT: pretrainer.insight}
    files = ["model", "checkpoints", METRICS, *drawn, *(name for name, present in made.items() if present)]
    text = next(iter(config.sample_prompts), "Once upon a time")
    uses = [command_line("complete", config.output_dir, text)]
    stage.finish(metrics, ", ".join(files), {CHECKPOINTS, INSIGHT, "trackers"}, uses)
