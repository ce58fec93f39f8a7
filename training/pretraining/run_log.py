"""The log of a pretraining run: progress on the terminal; metrics, incidents and samples in files; trackers."""

import math
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from training.common.metrics import INCIDENTS, LOGS, MetricsLog, as_duration, in_words
from training.common.progress import progress_bar
from training.pretraining.throughput import Throughput
from training.pretraining.validation import Sample


class RunLog:
    """Writes the records of a run. Every process may call it; only the main one prints and writes files.

    Args:
        folder: the stage's working folder.
        step: the step that the run starts or resumes from.
        bytes_per_token: text bytes per token of each split. Bits per byte are nats per token / bytes per token / ln 2.
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
            self.metrics, self.incidents, self.samples = (MetricsLog(folder / name, step) for name in LOGS)
        self.bar = progress_bar(total=max_steps, initial=step, unit="step", disable=None if self.main else True)

    def step(self) -> None:
        """Advance the progress bar by one step."""
        self.bar.update()

    def training(self, step: int, loss: float, learning_rate: float, grad_norm: float) -> None:
        """Write a training record.

        Args:
            loss: mean over the steps since the last record, in nats per token.
            grad_norm: of the last step, before clipping.
        """
        figures = {
            "loss": loss,
            "bits_per_byte": loss / self.nats_per_bit["train"],
            "learning_rate": learning_rate,
            "grad_norm": grad_norm,
        }
        record = self._write(step, figures | self.throughput.read(step))
        if self.main:
            self.bar.set_postfix_str(in_words(record), refresh=False)
            if self.bar.disable:  # no terminal: print lines, for a scheduler's log
                left = as_duration(self.throughput.time_left(step, self.max_steps))
                self.print(f"step {step}/{self.max_steps}: {in_words(record)}, {left} left")

    def validation(self, step: int, loss: float, by_folder: dict[str, float], samples: list[Sample]) -> None:
        """Write a validation record, and the samples.

        Args:
            loss: mean over the mixture, in nats per token.
            by_folder: the loss of each folder of shards.
            samples: empty in all processes but the main one.
        """
        bits = loss / self.nats_per_bit["validation"]
        members = {f"validation_loss/{folder}": member for folder, member in by_folder.items() if len(by_folder) > 1}
        self._write(step, {"validation_loss": loss, "validation_bits_per_byte": bits} | members)
        for sample in samples:
            self.samples.write({"step": step, "prompt": sample.prompt, "text": sample.text})
        below = "".join(map(str, samples))
        self.print(f"step {step}: validation loss {loss:.3f}, {bits:.3f} bits/byte{below}")

    def incident(self, kind: str, sentence: str, **details: Any) -> None:
        """Write an incident (see `training.pretraining.guards`) and print it as a sentence."""
        if self.main:
            self.incidents.write({"incident": kind, **details})
            tqdm.write(f"pretrain: {sentence} ({INCIDENTS})")

    def threads(self, step: int, number: int, same_bits: bool | None, sentence: str) -> None:
        """Write that the steps after this one run with another number of threads, and print it as a sentence.

        Args:
            same_bits: whether one thread computes the same bits; None where that was not compared.
        """
        self._write(step, {"threads": number} | ({} if same_bits is None else {"same_bits": same_bits}))
        self.print(f"pretrain: {sentence}")

    def print(self, text: str, end: str = "\n") -> None:
        """Print above the progress bar."""
        if self.main and text:
            self.bar.write(text, end=end)

    def close(self) -> None:
        """End the progress bar."""
        self.bar.close()

    def _write(self, step: int, figures: dict[str, float]) -> dict[str, float]:
        progress = {"tokens": step * self.throughput.tokens_per_step, "seconds": round(self.throughput.seconds, 3)}
        if self.main:
            self.metrics.write({"step": step} | progress | figures)
        self.accelerator.log(progress | figures, step=step)
        return figures
