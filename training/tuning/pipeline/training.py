"""Build a TRL trainer, train with exact resume, and save its model the way every other stage does."""

import contextlib
import copy
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, Trainer, get_scheduler
from trl import get_peft_config

from training.common.errors import UserError, one_line
from training.common.metrics import METRICS, finite
from training.common.processes import end_training
from training.machine.callback import FollowLoad
from training.model_io.model_folder import save_model, save_tokenizer
from training.plots.losses import plot_losses, trainer_curves
from training.stages.stage import Stage
from training.tuning.adapters import save_adapter
from training.tuning.figures import FIGURES
from training.tuning.pipeline.datasets import Splits
from training.tuning.pipeline.model import merge_trained_adapter
from training.tuning.pipeline.progress import show_progress
from training.tuning.pipeline.recipe import TrlRecipe, one_line_errors
from training.tuning.pipeline.resume import SeedSamplerByEpoch, train


def build_trainer(
    trainer_class: type[Trainer],
    recipe: TrlRecipe,
    splits: Splits,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    **extra_arguments: Any,
) -> Any:
    """The trainer, ready to train. TRL's trainers tokenize the data when they are constructed.

    Args:
        extra_arguments: of this trainer alone, such as `reward_funcs`.

    Raises:
        UserError: recipe, data, tokenizer and model do not fit together.
    """
    with _no_output(recipe.training), one_line_errors(recipe.where):
        trainer = trainer_class(
            model=model,
            args=recipe.training,
            train_dataset=splits.train,
            eval_dataset=splits.evaluation,
            processing_class=tokenizer,
            peft_config=get_peft_config(recipe.model),
            **extra_arguments,
        )
    check_optimizer(trainer, recipe.where)
    trainer.add_callback(SeedSamplerByEpoch())
    trainer.add_callback(FollowLoad())
    show_progress(trainer, FIGURES[recipe.stage])
    return trainer


def check_optimizer(trainer: Trainer, where: str) -> None:
    """Reject an optimizer or a schedule that cannot be built: the Trainer builds them when it has begun to train.

    Raises:
        UserError: names the key.
    """
    args, optimizer = copy.copy(trainer.args), torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    args.optim = args.optim.removesuffix("_layerwise")  # which attaches itself to the model
    with one_line_errors(f"{where}: 'optim'"):
        trainer.get_optimizer_cls_and_kwargs(args, trainer.model)
    with one_line_errors(f"{where}: 'lr_scheduler_type', 'lr_scheduler_kwargs'"):
        get_scheduler(args.lr_scheduler_type, optimizer, 1, 10, args.lr_scheduler_kwargs)


@contextlib.contextmanager
def _no_output(training: Any) -> Iterator[None]:
    """Point `output_dir` to a temporary folder while a trainer is constructed.

    The constructors of Trainer and of TRL's trainers create folders there, and then may still find a mistake in the
    recipe or the data. A mistake must leave nothing behind.

    Args:
        training: the TrainingArguments; `output_dir` is restored at the end.
    """
    output_dir = training.output_dir
    with tempfile.TemporaryDirectory() as temporary:
        training.output_dir = temporary
        try:
            yield
        finally:
            training.output_dir = output_dir


def train_and_save(stage: Stage, recipe: TrlRecipe, trainer: Any) -> None:
    """Train, save, and finish the stage. Every process calls this.

    1. Begin the stage's folder; the trainer's checkpoints go to `trainer/` in it.
    2. Train, from the newest complete checkpoint if an interrupted run left one, and write `metrics.jsonl` meanwhile;
       Ctrl-C and SIGTERM save and stop.
    3. Save the model (an adapter merged in, and beside it) and, if there are losses, `loss.png`.
    4. Call `trainer.after_training(folder)` if it has that method: in every process, it returns figures for the
       provenance, and the names of the files it wrote. If it fails, the weights are safe.
    5. Keep the logs of TensorBoard, delete the checkpoints, and put the folder in its place.
    """
    folder = _begin(stage, trainer)
    try:
        train(stage, trainer)
    except KeyError as error:  # at the first evaluation, of which the Trainer then lists the metrics
        if "metric_for_best_model" not in str(error):
            raise
        raise UserError(f"{recipe.where}: 'metric_for_best_model': {one_line(error.args[0])}") from None
    wrote = _save(recipe, trainer, folder)
    figures, files = trainer.after_training(folder) if hasattr(trainer, "after_training") else ({}, [])
    if trainer.is_world_process_zero():
        losses = [record["loss"] for record in trainer.state.log_history if "loss" in record]
        figures |= {"steps": trainer.state.global_step, "loss": finite(losses[-1]) if losses else None}
        if (folder / "trainer" / "runs").is_dir():  # TensorBoard's; some are there if a run was killed after this
            shutil.copytree(folder / "trainer" / "runs", folder / "runs", dirs_exist_ok=True)
        stage.finish(figures, ", ".join([*wrote, *files]), unlisted={"runs"})
    end_training(trainer.accelerator)


def _begin(stage: Stage, trainer: Any) -> Path:
    with trainer.args.main_process_first(local=False):
        folder = stage.begin() if trainer.args.process_index == 0 else stage.folder
        (folder / "trainer").mkdir(exist_ok=True)
    trainer.args.output_dir = str(folder / "trainer")
    return folder


def _save(recipe: TrlRecipe, trainer: Any, folder: Path) -> list[str]:
    """Write the model, metrics and plot; returns what the main process wrote, in words."""
    start, model, state_dict = recipe.model.model_name_or_path, trainer.accelerator.unwrap_model(trainer.model), None
    wrote = ["model"]
    if not recipe.model.use_peft:  # gathered, if the weights are sharded over the processes
        state_dict = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return wrote
    if recipe.model.use_peft:
        save_adapter(model, start, folder / "adapter")
        wrote = ["model with the adapter merged in", "adapter"]
        model = merge_trained_adapter(model, recipe, folder / "adapter")
    save_model(model, start, folder, state_dict, recipe.model.model_revision)
    if any(getattr(recipe.training, key, None) for key in ("chat_template_path", "eos_token", "pad_token")):
        save_tokenizer(trainer.processing_class, folder, model)
    curves = trainer_curves(trainer.state.log_history)
    drawn = plot_losses(curves, folder / "loss.png", recipe.stage, "step", trainer.loss_label)
    return [*wrote, METRICS, *drawn]
