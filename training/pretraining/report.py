"""What a pretraining says of itself: a bar or lines on the terminal, metrics.jsonl, incidents.jsonl, trackers."""

import math
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from training.common.metrics import INCIDENTS, LOGS, MetricsLog, as_duration, in_words
from training.common.progress import progress_bar
from training.pretraining.throughput import Throughput


class Report:
    """Every process may call this; the main one alone prints and writes.

    Args:
        folder: of the run.
        step: what the run goes on from.
        bytes_per_token: of text, in each split: a loss in nats per token over this and ln 2 is bits per byte.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        folder: Path,
        step: int,
        max_steps: int,
        throughput: Throughput,
        bytes_per_token: dict[str, float],
    ):
        self.accelerator, self.max_steps, self.throughput = accelerator, max_steps, throughput
        self.nats_per_bit = {split: size * math.log(2) for split, size in bytes_per_token.items()}
        self.main = accelerator.is_main_process
        if self.main:
            self.metrics, self.incidents = (MetricsLog(folder / name, step) for name in LOGS)
        self.bar = progress_bar(total=max_steps, initial=step, unit="step", disable=None if self.main else True)

    def step(self) -> None:
        """One more is done."""
        self.bar.update()

    def training(self, step: int, loss: float, learning_rate: float, grad_norm: float) -> None:
        """Of the steps since the last call."""
        figures = {
            "loss": loss,
            "bits_per_byte": loss / self.nats_per_bit["train"],
            "learning_rate": learning_rate,
            "grad_norm": grad_norm,
        }
        record = self._write(step, figures | self.throughput.read(step))
        if self.main:
            self.bar.set_postfix_str(in_words(record), refresh=False)
            if self.bar.disable:  # no terminal: lines that a scheduler's log shows
                left = as_duration(self.throughput.time_left(step, self.max_steps))
                self.say(f"step {step}/{self.max_steps}: {in_words(record)}, {left} left")

    def validation(self, step: int, loss: float, by_folder: dict[str, float], samples: str) -> None:
        """
        Args:
            loss: mean over the mixture.
            by_folder: of each of its members.
            samples: lines to print below.
        """
        bits = loss / self.nats_per_bit["validation"]
        members = {f"validation_loss/{folder}": member for folder, member in by_folder.items() if len(by_folder) > 1}
        self._write(step, {"validation_loss": loss, "validation_bits_per_byte": bits} | members)
        self.say(f"step {step}: validation loss {loss:.3f}, {bits:.3f} bits/byte{samples}")

    def incident(self, kind: str, sentence: str, **details: Any) -> None:
        """Something is wrong with the numbers (see `training.pretraining.guards`)."""
        if self.main:
            self.incidents.write({"incident": kind, **details})
            tqdm.write(f"pretrain: {sentence} ({INCIDENTS})")

    def say(self, text: str, end: str = "\n") -> None:
        if self.main and text:
            self.bar.write(text, end=end)

    def close(self) -> None:
        self.bar.close()

    def _write(self, step: int, figures: dict[str, float]) -> dict[str, float]:
        progress = {"tokens": step * self.throughput.tokens_per_step, "seconds": round(self.throughput.seconds, 3)}
        if self.main:
            self.metrics.write({"step": step} | progress | figures)
        self.accelerator.log(progress | figures, step=step)
        return figures
