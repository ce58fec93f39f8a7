"""Progress of a Trainer: one line per logging step; its dictionaries go to metrics.jsonl, as they come."""

import sys
import time
from pathlib import Path
from typing import Any

import datasets
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.utils import logging

from training.common.files import write_whole
from training.common.metrics import json_line
from training.common.progress import TrainingProgress, progress_bar


def show_progress(trainer: Trainer, figures: dict[str, str]) -> None:
    """Replace the progress callback of a Trainer by `ProgressLines`, and let it log the steps that it saves."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(DEFAULT_PROGRESS_CALLBACK)
    trainer.add_callback(ProgressLines(figures))
    trainer.add_callback(LogSavedSteps())


def hide_bars_in_logs() -> None:
    """Turn off the progress bars of datasets and transformers unless stderr is a terminal."""
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
        logging.disable_progress_bar()


class LogSavedSteps(TrainerCallback):
    """Logs the last step and every step that is saved, unless nothing is logged.

    A run shorter than `logging_steps` would leave no loss. A logged loss is the mean since the last one, which a
    checkpoint does not hold: without this, a resumed run would log other means.
    """

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if args.logging_strategy != "no" and (control.should_save or state.global_step >= state.max_steps):
            control.should_log = True

    on_epoch_end = on_step_end


class MetricsFile(TrainerCallback):
    """Writes what a Trainer logs to a file of JSON lines, as it is logged. Only the first process writes.

    A resumed run begins with the lines up to its checkpoint.
    """

    def __init__(self, file: Path):
        self.file, self.written = file, 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            write_whole(self.file, "".join(map(json_line, state.log_history)))
            self.written = len(state.log_history)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.writelines(map(json_line, state.log_history[self.written :]))
            self.written = len(state.log_history)


class ProgressLines(TrainerCallback):
    """Prints what a Trainer logs, such as

        step 20/200: loss 1.234, token accuracy 56%, lr 0.003, gradient 0.52, 4,321 tokens/s, 0:42 left
        step 20: validation loss 1.250, token accuracy 55%

    On a terminal the figures follow a progress bar; in a log, each step is a line. Only the first process prints.

    Args:
        figures: name of a logged figure to its format, such as `{"reward": "reward {:.3f}"}`, in the order of the
            line. Loss, learning rate, gradient norm, rate and time left are printed for all.
    """

    def __init__(self, figures: dict[str, str]):
        self.figures = figures
        self.progress: TrainingProgress | None = None
        self.evaluation_bar: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        self.progress = TrainingProgress(state.max_steps, state.global_step, bool(args.disable_tqdm))
        self.read_step, self.read_at = state.global_step, time.monotonic()
        self.tokens = state.num_input_tokens_seen  # GRPO and RLOO resume this count; others start at 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.progress:
            self.progress.advance(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not self.progress or not logs:
            return
        if "loss" in logs:
            figures = [f"loss {logs['loss']:.3f}", *self._figures(logs)]
            if "learning_rate" in logs:
                figures.append(f"lr {logs['learning_rate']:.2g}")
            if "grad_norm" in logs:
                figures.append(f"gradient {logs['grad_norm']:.2g}")
            self.progress.log(state.global_step, ", ".join([*figures, self._rate(args, state, logs)]))
        elif "eval_loss" in logs:
            figures = [f"validation loss {logs['eval_loss']:.3f}", *self._figures(logs, "eval_")]
            self.progress.write(f"step {state.global_step}: {', '.join(figures)}")

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero:
            return
        if self.evaluation_bar is None:
            total = len(eval_dataloader) if hasattr(eval_dataloader, "__len__") else None
            hidden = True if args.disable_tqdm else None
            self.evaluation_bar = progress_bar(total=total, desc="evaluation", leave=False, disable=hidden)
            self.evaluating_since = time.monotonic()
        self.evaluation_bar.update()

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        if self.evaluation_bar is not None:
            self.evaluation_bar.close()
            self.evaluation_bar = None
            if self.progress:
                self.read_at += time.monotonic() - self.evaluating_since  # so that the rate is that of training alone

    on_predict = on_evaluate

    def on_train_end(self, *_: Any, **__: Any) -> None:
        if self.progress:
            self.progress.close()
            self.progress = None

    def _figures(self, logs: dict[str, Any], prefix: str = "") -> list[str]:
        named = ((logs.get(prefix + name), form) for name, form in self.figures.items())
        return [form.format(value) for value, form in named if value is not None]

    def _rate(self, args: TrainingArguments, state: TrainerState, logs: dict[str, Any]) -> str:
        """Tokens per second since the last line, where the trainer counts tokens; otherwise samples per second."""
        now = time.monotonic()
        seconds = now - self.read_at
        steps, self.read_step, self.read_at = state.global_step - self.read_step, state.global_step, now
        if "num_tokens" in logs:
            seen = logs["num_tokens"]
            new = seen - self.tokens if seen >= self.tokens else seen
            self.tokens = seen
            return f"{new / seconds:,.0f} tokens/s"
        samples = steps * args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        return f"{samples / seconds:,.1f} samples/s"
