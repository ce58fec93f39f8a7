"""Train a language model from random weights on the token shards of `scratch prepare`.

One process: scratch pretrain --config recipes/quickstart/pretrain.yaml
Several:     accelerate launch --config_file recipes/accelerate/ddp.yaml -m training pretrain --config RECIPE

Interrupted, it goes on from its newest checkpoint when the same command is given again. It ends with exit code 0 when
it is done, 2 for a mistake in the recipe, 1 when the machine fails it (a full disk), and 130 or 143 when Ctrl-C or
SIGTERM stopped it, after a checkpoint of the step it was at: a scheduler may start it again.
"""

import dataclasses

from training.common.metrics import METRICS, median_rate, read_metrics
from training.common.processes import end_training, local_rank
from training.common.recipe import build, read_arguments
from training.common.signals import Interrupted
from training.common.stage import Stage, check_stage, digest
from training.data.shards import check_hashes, check_tokenizer
from training.model_io.tokenizers import open_tokenizer
from training.plots.losses import plot_losses
from training.pretraining.build import build_accelerator, derive_from_depth
from training.pretraining.config import RUNTIME_KEYS, PretrainConfig
from training.pretraining.loop import Pretraining
from training.pretraining.state import export_model
from training.pretraining.trackers import start_trackers


CONFIG = PretrainConfig


def main(arguments: list[str]) -> None:
    given, where = read_arguments(PretrainConfig, arguments, __doc__)
    config = build(PretrainConfig, given, where)
    folders = config.mixture.folders
    for folder in folders:
        check_stage(folder, "prepare", key="data")
    check_stage(config.tokenizer, "tokenizer", key="tokenizer")
    tokenizer = open_tokenizer(config.tokenizer, "tokenizer")
    for folder in folders:
        check_tokenizer(folder, config.tokenizer)
    derived: list[str] = []
    if config.depth is not None:
        config, derived = derive_from_depth(config, given, tokenizer, where)
    key = "data" if isinstance(config.data, str) and not config.curriculum else "data.{}"
    inputs = {key.format(folder): digest(folder, "data") for folder in folders}
    inputs |= {"tokenizer": digest(config.tokenizer, "tokenizer")}
    recipe = dataclasses.asdict(config)
    stage = Stage("pretrain", config.output_dir, recipe, inputs, arguments, RUNTIME_KEYS)
    if stage.is_current():
        return
    if not config.restart:
        stage.check_interrupted()
    # Once a run, since it reads everything; before the processes meet, for they wait only so long for one another.
    if local_rank() == 0 and not stage.folder.exists():
        for folder in folders:
            check_hashes(folder)
    accelerator = build_accelerator(config)
    training = Pretraining(config, stage.folder, tokenizer, accelerator)
    # Only now, with all of the recipe known to be right: a restart discards the checkpoints of the interrupted run.
    if accelerator.is_main_process:
        stage.begin(config.restart)
    accelerator.wait_for_everyone()
    training.resume()
    start_trackers(accelerator, config.output_dir, stage.folder, recipe, training.step)
    if derived:
        accelerator.print("\n".join([f"pretrain: depth {config.depth}", *derived]))
    parameters = sum(parameter.numel() for parameter in accelerator.unwrap_model(training.model).parameters())
    tokens = config.max_steps * training.throughput.tokens_per_step
    accelerator.print(
        f"pretrain: {parameters / 1e6:.1f}M parameters; {tokens / 1e6:.1f}M tokens of "
        f"{training.train.num_tokens / 1e6:.1f}M in the shards ({config.packing}, "
        f"{training.train.utilisation:.1%} of the slots scored); {accelerator.num_processes} x {accelerator.device}, "
        f"precision {accelerator.mixed_precision}, {'compiled, ' * training.compiled}"
        f"{accelerator.gradient_accumulation_steps} accumulation steps; "
        f"matrix products at {training.throughput.rate / 1e9:,.0f} GFLOP/s, the measure of MFU"
    )
    if len(folders) > 1:
        accelerator.print(training.train.describe(config.max_steps))
    if config.curriculum:
        accelerator.print(config.mixture.describe())
    try:
        training.run(stage)
    except Interrupted:
        end_training(accelerator)  # what the trackers still hold
        raise
    export_model(accelerator, training.model, config.tokenizer, stage.folder)
    end_training(accelerator)
    if accelerator.is_main_process:
        records = read_metrics(stage.folder / METRICS)
        plot_losses(records, stage.folder / "loss.png", f"{parameters / 1e6:.1f}M parameters")
        metrics = {
            "parameters": parameters,
            "tokens": tokens,
            "validation_loss": training.validation_loss,
            "tokens_per_second": median_rate(records),
        }
        wrote = "model, checkpoints, metrics.jsonl, loss.png" + ", profile" * config.profile
        stage.finish(metrics, wrote)
