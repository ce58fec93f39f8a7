"""Threads of a pretraining run: their number follows the load between steps; metrics.jsonl records each change."""

import zlib
from typing import TYPE_CHECKING

import torch

from training.machine.threads import follow_load, same_bits

if TYPE_CHECKING:
    from training.pretraining.loop import Pretrainer


class ThreadLog:
    """Chooses the number of threads for the next steps, and logs it.

    Sums that threads share can come out with other last bits when their number changes. The first time that a run has
    several threads, it computes its next gradient with all of them and with one, and logs whether the bits agree. They
    do in what was tried (fp32 and bf16, eager). Where they do not, the logged numbers repeat the run.
    """

    def __init__(self, pretrainer: "Pretrainer"):
        self.pretrainer = pretrainer
        self.same_bits: bool | None = None

    def follow_load(self) -> None:
        """Set the number of threads by the load."""
        change = follow_load()
        if not change:
            return
        if self.same_bits is None and self.can_compare:
            self.same_bits = same_bits(self.checksums)
            if self.same_bits is False:
                change += "; it changes the last bits here, OMP_NUM_THREADS=1 fixes it"
        self.pretrainer.log.threads(self.pretrainer.step, torch.get_num_threads(), self.same_bits, change)

    @property
    def can_compare(self) -> bool:
        """Whether one more gradient is cheap: not if it is compiled again, or needs other processes."""
        accelerator = self.pretrainer.accelerator
        return not self.pretrainer.compiled and accelerator.num_processes == 1 and accelerator.device.type == "cpu"

    def checksums(self) -> list[float]:
        """Checksums of loss, gradients and their norm for the first micro-batch of the next step."""
        pretrainer = self.pretrainer
        pretrainer.prepare_step()
        sequences = pretrainer.training_data.sequence_ids(pretrainer.step)[: pretrainer.at_once]
        batch = pretrainer.training_data.read(sequences)
        loss = pretrainer.compute_loss(batch, num_items_in_batch=pretrainer.training_data.num_predictions(sequences))
        loss.backward()
        gradients = [weight.grad for weight in pretrainer.model.parameters() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        found = [loss.item(), norm.item(), *(zlib.crc32(gradient.numpy().tobytes()) for gradient in gradients)]
        pretrainer.optimizer.zero_grad()
        return found
