"""The pretraining loop: `Pretrainer`, with steps, metrics, validations and checkpoints in the order they happen.

`sequence` is one row of a batch, `sequence_length` tokens long; `step` counts optimizer steps, each over one global
batch: the sequences of all processes and accumulation steps. Losses are means in nats per scored token.
"""

import math
import statistics
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list
from transformers import PreTrainedTokenizerFast

from modeling_scratch import ScratchForCausalLM
from training.common.errors import UserError
from training.common.metrics import LOGS
from training.common.signals import Interrupted, StopSignals
from training.data.loader import Batch, TokenLoader
from training.insight.capture import Capture
from training.insight.record import HEADS, INSIGHT, STEPS
from training.insight.run_capture import SHARDED, RunCapture
from training.optim.optimizer import build_optimizer
from training.optim.schedule import learning_rate_factor
from training.pretraining.accelerator import prepare, share_of_batch, shares_of_batch
from training.pretraining.checkpoint import Checkpoints, reusable_steps
from training.pretraining.config import PretrainConfig
from training.pretraining.guards import MOST_SKIPPED, LossSpikes, check_initial_loss
from training.pretraining.model import build_model, place_model
from training.pretraining.profile import Profiler, Spans, span_parts
from training.pretraining.randomness import seed_step
from training.pretraining.run_log import RunLog
from training.pretraining.state import TrainingState, check_layout, is_sharded, load_sharded, save_sharded
from training.pretraining.thread_log import ThreadLog
from training.pretraining.throughput import build_throughput
from training.pretraining.validation import readable_prompts, samples, validate
from training.stages.checkpoints import CHECKPOINTS
from training.stages.stage import Stage

# Validations and samples have other shapes than training. Compiling for them takes longer than running them, and would
# make the compiled training code depend on when they happen.
without_compiling = partial(torch.compiler.set_stance, "eager_on_recompile")


class Pretrainer:
    """Trains one model: `resume` restores the newest checkpoint, `train` runs to the last step.

        pretrainer = Pretrainer(config, stage.folder, tokenizer, build_accelerator(config))
        pretrainer.resume()
        pretrainer.train(stage)

    Args:
        folder: the stage's working folder, for logs and checkpoints.
        tokenizer: of the shards.
        accelerator: from `build_accelerator`.

    Raises:
        UserError: the model options or the shards are wrong.
    """

    def __init__(
        self, config: PretrainConfig, folder: Path, tokenizer: PreTrainedTokenizerFast, accelerator: Accelerator
    ):
        self.config, self.folder, self.tokenizer, self.accelerator = config, folder, tokenizer, accelerator
        self.shares, self.share = shares_of_batch(accelerator), share_of_batch(accelerator)  # of a batch; own number
        self.at_once = config.sequences_at_once(self.shares)  # in a forward pass
        self.training_data = self.open_data("train", config.global_batch_size)
        self.validation_data = self.open_data("validation", 1)
        self.span = Spans(accelerator.device) if config.profile else nullcontext
        self.profiler: Profiler | None = None
        model = self.build_model()
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.num_tokens = config.max_steps * self.throughput.tokens_per_step  # of the whole run
        self.sharded = is_sharded(accelerator)
        self.insight = self.build_insight(model)
        self.model, self.optimizer = prepare(accelerator, model, build_optimizer(model, config.optimizer))
        self.prompts = readable_prompts(config.sample_prompts, tokenizer, config.sequence_length)
        self.step = 0  # optimizer steps done
        self.losses: list[float] = []  # of the steps since the last line of metrics.jsonl
        self.grad_norm = math.nan  # of the last step, before clipping
        self.validation_loss, self.validated_step = math.nan, 0
        self.spikes, self.skipped = LossSpikes(), 0
        self.stop = StopSignals()
        self.stopped_by: int | None = None  # the signal on which all processes stop after this step
        asynchronous = config.async_save and not self.sharded
        logs = [folder / name for name in LOGS]
        logs += [folder / INSIGHT / name for name in (STEPS, HEADS) if self.insight]
        kept = config.keep_last, config.keep_best, reusable_steps(config)
        self.checkpoints = Checkpoints(folder / CHECKPOINTS, *kept, asynchronous, logs)
        if not self.sharded:
            self.state = TrainingState(model, self.optimizer.optimizer, config.tokenizer, copied=asynchronous)

    def open_data(self, split: str, global_batch_size: int) -> TokenLoader:
        """The loader of one split of the mixture."""
        config = self.config
        return TokenLoader.open(
            config.mixture,
            split,
            config.packing,
            config.sequence_length,
            global_batch_size,
            config.seed,
            config.document_mask,
        )

    def build_model(self) -> ScratchForCausalLM:
        """The network with random weights, on its device; sets `throughput` and `compiled`."""
        config, accelerator = self.config, self.accelerator
        model = build_model(config, self.tokenizer)
        self.throughput = build_throughput(config, model, accelerator)
        self.compiled = place_model(model, config, accelerator, self.throughput.operations_per_step)
        if config.profile:
            span_parts(model, self.span)
        return model

    def build_insight(self, model: ScratchForCausalLM) -> RunCapture | None:
        """The captures of attention, if the recipe asks for them. Raises UserError: its keys do not fit the model."""
        insight = self.config.insight
        if insight.enabled and self.sharded:
            self.accelerator.print(f"pretrain: {SHARDED}")
        if not insight.enabled or self.sharded:
            return None
        held_out, seed, tokens = self.validation_data, self.config.seed, self.throughput.tokens_per_step
        capture = Capture(model, self.tokenizer, insight, held_out, seed, tokens)
        return RunCapture(self.accelerator, capture, insight.steps(self.config.max_steps))

    def resume(self) -> None:
        """Restore the newest complete checkpoint, if there is one.

        Raises:
            UserError: the checkpoint has another model than the recipe's or comes from another kind of launch, or its
                folder cannot be written.
        """
        newest = self.checkpoints.newest() if self.accelerator.is_main_process else None
        (newest,) = broadcast_object_list([newest])
        if newest is None:
            return
        check_layout(self.accelerator, newest.folder)
        if self.sharded:
            load_sharded(self.accelerator, newest.folder)
        else:
            self.state.restore(newest.folder)
        progress = newest.progress
        self.step, self.losses, self.throughput.seconds_before = newest.step, progress["losses"], progress["seconds"]
        if newest.validation_loss is not None:
            self.validation_loss, self.validated_step = newest.validation_loss, newest.step
        self.accelerator.print(f"pretrain: resuming from step {self.step} ({newest.folder})")

    def train(self, stage: Stage) -> None:
        """Train to `max_steps`.

        Raises:
            Interrupted: a signal arrived; the last whole step is saved.
            UserError: loss or gradient is not finite, and the recipe says to stop.
        """
        self.start()
        with self.stop, self.checkpoints:
            while self.step < self.config.max_steps:
                self.threads.follow_load()
                self.train_step()
                self.checkpoints.check()
                self.log_if_due()
                self.validate_if_due()
                self.capture_if_due()
                self.save_if_due(stage)
                self.profile_step()
                self.stop_if_asked(stage)
        self.log.close()
        if self.profiler:
            self.log.print(self.profiler.finish(), end="")

    def start(self) -> None:
        """Open the logs, check the initial weights, start the profiler and the clock."""
        sizes = {"train": self.training_data.bytes_per_token, "validation": self.validation_data.bytes_per_token}
        self.log = RunLog(self.accelerator, self.folder, self.step, self.config.max_steps, self.throughput, sizes)
        self.threads = ThreadLog(self)
        self.threads.follow_load()
        if self.step == 0:
            self.check_start()
        if self.insight:
            self.log.print(self.insight.begin(self.folder / INSIGHT, self.model, self.step))
        if self.config.profile and self.accelerator.is_main_process:
            self.profiler = Profiler(self.folder / "profile", self.span)
        self.throughput.start(self.step)

    def check_start(self) -> None:
        """Record an incident if random weights do worse than a uniform guess."""
        loss, _ = self.validation_losses()
        complaint = check_initial_loss(loss, self.accelerator.unwrap_model(self.model).config.vocab_size)
        if complaint:
            self.log.incident("worse than chance", complaint, step=0, validation_loss=loss)

    def is_due(self, every: int) -> bool:
        """Whether something done every so many steps is due now; after the last step everything is."""
        return self.step % every == 0 or self.step == self.config.max_steps

    def log_if_due(self) -> None:
        """Write a line of metrics with the mean loss since the last one. None if all those steps were skipped."""
        self.log.step()
        if self.losses and self.is_due(self.config.logging_steps):
            with self.span("logging"):
                rate = self.optimizer.param_groups[0]["lr"]
                self.log.training(self.step, statistics.fmean(self.losses), rate, self.grad_norm)
                self.losses = []

    def validate_if_due(self) -> None:
        """Measure the validation loss and print samples."""
        if self.is_due(self.config.eval_steps):
            with self.span("evaluation"), self.throughput.paused():
                self.validate()

    def capture_if_due(self) -> None:
        """Capture attention at the steps that the recipe's `insight` names."""
        if self.insight and self.insight.is_due(self.step):
            with self.span("insight"), self.throughput.paused():
                self.insight.capture(self.model, self.step)

    def save_if_due(self, stage: Stage) -> None:
        """Write a checkpoint. A signal to stop makes one due as well."""
        if self.is_due(self.config.save_steps) or self.stopped_by:
            with self.span("checkpointing"), self.throughput.paused():
                self.save()
                if self.accelerator.is_main_process:
                    stage.heartbeat()

    def profile_step(self) -> None:
        """Tell the profiler that a step is done, and print what it reports."""
        if self.profiler:
            with self.throughput.paused():
                self.log.print(self.profiler.step(), end="")

    def stop_if_asked(self, stage: Stage) -> None:
        """End the run after a signal, unless this was the last step anyway. Raises Interrupted."""
        if self.stopped_by is None or self.step == self.config.max_steps:
            return
        self.log.close()
        self.checkpoints.wait()
        self.accelerator.wait_for_everyone()  # once one process has ended, launchers soon kill the others
        raise Interrupted(self.stopped_by, stage.describe_stop(self.step))

    def train_step(self) -> None:
        """Do one optimizer step over one global batch.

        Raises:
            UserError: loss or gradient is not finite, and the recipe says to stop.
        """
        self.prepare_step()
        with self.span("loader"):
            sequences = self.training_data.sequence_ids(self.step)
        loss_sum = self.accumulate_gradients(sequences)
        with self.span("optimizer"):
            grad_norm = self.clip_gradients()
            loss, self.stopped_by = self.reduce(loss_sum)
            if self.check_step(loss, grad_norm, sequences):
                self.optimizer.step()
            self.optimizer.zero_grad()
        self.step += 1

    def prepare_step(self) -> None:
        """Seed the random draws of this step, set train mode and the learning rates."""
        self.model.train()
        seed_step(self.config.seed, self.step, self.share, self.accelerator.device)
        self.set_learning_rates()

    def set_learning_rates(self) -> None:
        """Set each group's learning rate for this step."""
        config = self.config.optimizer
        factor = learning_rate_factor(
            self.step,
            self.config.max_steps,
            config.schedule,
            config.warmup_steps,
            config.decay_fraction,
            config.final_fraction,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def accumulate_gradients(self, sequences: np.ndarray) -> torch.Tensor:
        """Run forward and backward over this process's share of a global batch, in micro-batches.

        Args:
            sequences: ids of the global batch, (global_batch_size,).

        Returns:
            This process's part of the global batch's mean loss, a scalar: the parts of all processes add up to it.
        """
        accelerator, size = self.accelerator, self.at_once
        with self.span("loader"):
            num_predictions = self.training_data.num_predictions(sequences)
        mine = sequences[self.share :: self.shares]
        loss_sum = torch.zeros((), device=accelerator.device)
        for first in range(0, len(mine), size):
            with self.span("loader"):
                batch = self.training_data.read(mine[first : first + size])
            with accelerator.accumulate(self.model):
                with self.span("forward"):
                    # Sum over tokens divided by the tokens of the whole global batch: unequal parts add up correctly.
                    loss = self.compute_loss(batch, num_items_in_batch=num_predictions)
                    loss_sum += loss.detach()
                with self.span("backward"):
                    # Undo the division by the accumulation steps (backward) and by the shares (averaged gradients).
                    # DeepSpeed clips and steps in here, after the last micro-batch; `optimizer.step` then does nothing.
                    accelerator.backward(loss * accelerator.gradient_accumulation_steps * self.shares)
        return loss_sum * (self.shares / accelerator.num_processes)  # the processes of a group have the same sum

    def compute_loss(self, batch: Batch, **kwargs: Any) -> torch.Tensor:
        """Mean cross-entropy of a batch's labels, in nats, a scalar."""
        input_ids, labels, position_ids = batch.to(self.accelerator.device)
        # ZeRO-3 gathers a matrix only while its own module runs; the loss without logits reads it from outside.
        kwargs["skip_logits"] = self.accelerator.distributed_type != DistributedType.DEEPSPEED
        return self.model(
            input_ids=input_ids,
            labels=labels,  # not read, but needed: without labels, a forward that computes logits computes no loss
            shift_labels=labels,  # (batch, seq), shifted by the loader
            position_ids=position_ids,
            use_cache=False,  # with a cache, attention would cross documents
            **kwargs,
        ).loss

    def clip_gradients(self) -> torch.Tensor | None:
        """Clip the gradient to `max_grad_norm`; return its norm before, None where DeepSpeed does not report it."""
        return self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm or math.inf)

    def reduce(self, loss_sum: torch.Tensor) -> tuple[float, int | None]:
        """The global batch's mean loss, and the signal on which all processes stop after this step.

        Both travel in one sum over the processes, so that all of them learn of a signal at the same step.
        """
        sums = torch.cat([loss_sum.view(1), loss_sum.new_tensor(self.stop.local_signals())])
        loss, *signals = self.accelerator.reduce(sums, reduction="sum").tolist()
        return loss, self.stop.agreed_signal(signals)

    def check_step(self, loss: float, grad_norm: torch.Tensor | None, sequences: np.ndarray) -> bool:
        """Record this step's loss; return whether its gradient may be applied.

        Args:
            loss: the mean over the global batch, in nats.
            grad_norm: before clipping; None where it is unknown.
            sequences: ids of the global batch, (global_batch_size,).

        Raises:
            UserError: loss or gradient is not finite, and the recipe says to stop.
        """
        self.grad_norm = math.nan if grad_norm is None else float(grad_norm)
        if not math.isfinite(loss) or (grad_norm is not None and not math.isfinite(self.grad_norm)):
            self.reject_step(loss, sequences)
            return False
        median = self.spikes.record(loss)
        if median is not None:
            jump = f"the loss of step {self.step + 1} jumped from {median:.2f} to {loss:.2f}"
            self.record_incident("spike", jump, loss, sequences)
        self.losses.append(loss)
        self.skipped = 0
        return True

    def reject_step(self, loss: float, sequences: np.ndarray) -> None:
        """Record a loss or gradient that is not finite. Raises UserError unless the recipe says to skip such steps."""
        self.skipped += 1
        found = f"step {self.step + 1} has a loss of {loss} and a gradient norm of {self.grad_norm}"
        remedy = "lower the learning rates or max_grad_norm and start over with --restart"
        if self.skipped == MOST_SKIPPED:
            found += f", like the {MOST_SKIPPED - 1} steps before it"
        elif self.config.on_nonfinite == "skip":
            self.record_incident("not finite", f"{found}; its batch is skipped", loss, sequences)
            return
        else:
            remedy += ", or set on_nonfinite to skip"
        self.record_incident("not finite", found, loss, sequences)
        raise UserError(f"{found}; {remedy} (the checkpoints in {self.checkpoints.folder} are from before)")

    def record_incident(self, kind: str, sentence: str, loss: float, sequences: np.ndarray) -> None:
        """Print an incident of this step and write it to incidents.jsonl, with the documents of its batch."""
        documents = self.training_data.documents(sequences)
        details = {"step": self.step + 1, "loss": loss, "grad_norm": self.grad_norm, "documents": documents}
        self.log.incident(kind, sentence, **details)

    def validate(self) -> None:
        """Measure the loss on the validation split and print samples."""
        self.validation_loss, by_folder = self.validation_losses()
        self.validated_step = self.step
        written = []
        if self.accelerator.is_main_process and not self.sharded:  # a single process cannot run a sharded model
            model, config = self.accelerator.unwrap_model(self.model), self.config
            with without_compiling():
                written = samples(model, self.tokenizer, self.prompts, config.sample_tokens, config.seed)
        self.log.validation(self.step, self.validation_loss, by_folder, written)

    def validation_losses(self) -> tuple[float, dict[str, float]]:
        """The mean validation loss over the mixture, weighted by its shares, and the loss of each folder."""
        self.model.eval()
        config, data = self.config, self.validation_data
        with without_compiling():
            by_folder = validate(self.compute_loss, data, config.eval_sequences, self.at_once)
        return float(data.mixture.shares @ list(by_folder.values())), by_folder

    def save(self) -> None:
        """Write a checkpoint of this step."""
        validated = self.validated_step == self.step and math.isfinite(self.validation_loss)
        progress = {
            "step": self.step,
            "validation_loss": self.validation_loss if validated else None,
            "losses": list(self.losses),  # a copy: another thread may write it
            "seconds": round(self.throughput.seconds, 3),
            "compiled": self.compiled,
        }
        if self.sharded:
            save_sharded(self.accelerator, self.model, self.config.tokenizer, self.checkpoints, progress)
        elif self.accelerator.is_main_process:
            self.checkpoints.save(progress, self.state.capture)
