"""The pretraining loop: batches to gradients to steps, with validations, samples and checkpoints between them."""

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
from training.common.device import pays_to_compile, pick_attention
from training.common.errors import UserError
from training.common.metrics import LOGS
from training.common.signals import Interrupted, StopSignals
from training.common.stage import Stage
from training.data.loader import Batch, TokenLoader
from training.optim.build import build_optimizer
from training.optim.schedule import learning_rate_factor
from training.pretraining.build import build_model
from training.pretraining.checkpoint import Checkpoints
from training.pretraining.config import PretrainConfig
from training.pretraining.guards import MOST_SKIPPED, LossSpikes, worse_than_chance
from training.pretraining.profile import Profiler, Spans, span_parts
from training.pretraining.randomness import seed_step
from training.pretraining.report import Report
from training.pretraining.state import TrainingState, check_layout, is_sharded, load_sharded, save_sharded
from training.pretraining.throughput import Throughput, matrix_product_rate, operations_per_token
from training.pretraining.validation import readable_prompts, samples, validate

# Validations and samples come in other shapes than training. Compiling for them takes longer than they do, and would
# make the training's own code depend on when they happen.
without_compiling = partial(torch.compiler.set_stance, "eager_on_recompile")


class Pretraining:
    """The loop and what it holds: model, optimizer, data and the step it has reached."""

    def __init__(
        self, config: PretrainConfig, folder: Path, tokenizer: PreTrainedTokenizerFast, accelerator: Accelerator
    ):
        self.config, self.folder, self.tokenizer, self.accelerator = config, folder, tokenizer, accelerator
        self.train, self.validation = (
            TokenLoader.open(
                config.mixture, split, config.packing, config.sequence_length, rows, config.seed, config.document_mask
            )
            for split, rows in (("train", config.global_batch_size), ("validation", 1))
        )
        self.span = Spans(accelerator.device) if config.profile else nullcontext
        model = self.build()
        self.model, self.optimizer = accelerator.prepare(model, build_optimizer(model, config.optimizer))
        self.prompts = readable_prompts(config.sample_prompts, tokenizer, config.sequence_length)
        self.step, self.validation_loss = 0, math.nan
        self.losses: list[float] = []  # of the steps since the last line of metrics.jsonl
        self.spikes, self.skipped = LossSpikes(), 0
        self.stop = StopSignals()
        self.stopped_by: int | None = None  # the signal that all processes heed after this step
        self.sharded = is_sharded(accelerator)
        asynchronous = config.async_save and not self.sharded
        logs = [folder / name for name in LOGS]
        self.checkpoints = Checkpoints(folder / "checkpoints", config.keep_last, config.keep_best, asynchronous, logs)
        if not self.sharded:
            self.state = TrainingState(model, self.optimizer.optimizer, config.tokenizer, copied=asynchronous)

    def build(self) -> ScratchForCausalLM:
        """The network with random weights, where and how it is to run; starts the clock that knows its operations."""
        config, device = self.config, self.accelerator.device
        model = build_model(config, self.tokenizer)
        if config.activation_checkpointing:
            model.activation_checkpointing_enable()
        model.to(device)
        dtype = torch.bfloat16 if self.accelerator.mixed_precision == "bf16" else torch.float32
        self.throughput = Throughput(
            device,
            tokens_per_step=config.global_batch_size * config.sequence_length,
            operations_per_token=operations_per_token(model, model.config, config.sequence_length),
            rate=matrix_product_rate(device, dtype) * self.accelerator.num_processes,
        )
        self.compiled = config.torch_compile
        if self.compiled is None:
            own_engine = self.accelerator.distributed_type == DistributedType.DEEPSPEED  # hooks every module
            operations = config.max_steps * self.throughput.operations_per_step
            self.compiled = not own_engine and pays_to_compile(device, operations)
        if config.attn_implementation is None:
            model.set_attn_implementation(pick_attention(device, config.sequence_length, self.compiled))
        if self.compiled:
            model.compile_regions()
        if config.profile:
            span_parts(model, self.span)
        return model

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, if there is one.

        Raises:
            UserError: it is of another model than the recipe's or of another kind of launch, or its folder cannot be
                written.
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
            self.validation_loss = newest.validation_loss
        self.accelerator.print(f"pretrain: going on from step {self.step} ({newest.folder})")

    def run(self, stage: Stage) -> None:
        """Train to `max_steps`.

        Raises:
            Interrupted: a signal came; a checkpoint of the last whole step is written.
        """
        config = self.config
        sizes = {"train": self.train.bytes_per_token, "validation": self.validation.bytes_per_token}
        self.report = Report(self.accelerator, self.folder, self.step, config.max_steps, self.throughput, sizes)
        if self.step == 0:
            self.check_start()
        profiler = None
        if config.profile and self.accelerator.is_main_process:
            profiler = Profiler(self.folder / "profile", self.span)
        self.throughput.start(self.step)
        with self.stop, self.checkpoints:
            while self.step < config.max_steps:
                self.train_step()
                self.checkpoints.check()
                self.report.step()
                last = self.step == config.max_steps
                if self.losses and (self.step % config.logging_steps == 0 or last):
                    with self.span("logging"):
                        rate = self.optimizer.param_groups[0]["lr"]
                        self.report.training(self.step, statistics.fmean(self.losses), rate, self.grad_norm)
                        self.losses = []
                validated = self.step % config.eval_steps == 0 or last
                if validated:
                    with self.span("evaluation"), self.throughput.paused():
                        self.evaluate()
                if self.step % config.save_steps == 0 or last or self.stopped_by:
                    with self.span("checkpointing"), self.throughput.paused():
                        self.save(validated)
                        if self.accelerator.is_main_process:
                            stage.heartbeat()
                if profiler:
                    with self.throughput.paused():
                        self.report.say(profiler.step(), end="")
                if self.stopped_by and not last:
                    self.report.close()
                    self.checkpoints.wait()
                    self.accelerator.wait_for_everyone()  # a launcher gives the others little time once one has ended
                    again = "the same command without --restart" if config.restart else "the same command"
                    raise Interrupted(
                        self.stopped_by, f"stopped after step {self.step}, saved; {again} goes on from there"
                    )
        self.report.close()
        if profiler:
            self.report.say(profiler.finish(), end="")

    def train_step(self) -> None:
        """One optimizer step over one global batch.

        Raises:
            UserError: loss or gradient is not finite, and the recipe says to stop.
        """
        config, accelerator = self.config, self.accelerator
        self.model.train()
        seed_step(config.seed, self.step, accelerator.process_index, accelerator.device)
        self.set_learning_rates()
        with self.span("loader"):
            windows = self.train.sequence_ids(self.step)
            num_predictions = self.train.num_predictions(windows)
            mine = windows[accelerator.process_index :: accelerator.num_processes]
        total, norm = torch.zeros((), device=accelerator.device), None
        for rows in range(0, len(mine), config.per_device_train_batch_size):
            with self.span("loader"):
                batch = self.train.read(mine[rows : rows + config.per_device_train_batch_size])
            with accelerator.accumulate(self.model):
                with self.span("forward"):
                    # Sum over tokens divided by the tokens of the whole global batch: unequal parts add up rightly.
                    loss = self.loss(batch, num_items_in_batch=num_predictions)
                    total += loss.detach()
                with self.span("backward"):
                    # Undo the division by the accumulation steps (backward) and by the processes (averaged gradients).
                    accelerator.backward(loss * accelerator.gradient_accumulation_steps * accelerator.num_processes)
                with self.span("optimizer"):
                    if accelerator.sync_gradients:
                        norm = accelerator.clip_grad_norm_(self.model.parameters(), config.max_grad_norm or math.inf)
                        # A wish to stop travels with the loss: every process learns of it at the same step.
                        sums = torch.cat([total.view(1), total.new_tensor(self.stop.local_signals())])
                        loss, *wishes = accelerator.reduce(sums, reduction="sum").tolist()
                        self.stopped_by = self.stop.agreed_signal(wishes)
                        finite = self.judge(loss, norm, windows)
                    if not accelerator.sync_gradients or finite:
                        self.optimizer.step()
                    self.optimizer.zero_grad()
        self.step += 1

    def set_learning_rates(self) -> None:
        """Of this step, by the schedule."""
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

    def judge(self, loss: float, norm: torch.Tensor | None, windows: np.ndarray) -> bool:
        """Whether the gradient may be used; note the loss of this step, and what is wrong with it.

        Args:
            loss: the mean over the global batch, in nats.
            norm: of the gradient before clipping; None where the engine (DeepSpeed) keeps it to itself.
            windows: the rows of the global batch.
        """
        self.grad_norm = math.nan if norm is None else float(norm)
        step = self.step + 1  # as metrics.jsonl counts

        def details() -> dict[str, Any]:
            documents = self.train.documents(windows)
            return {"step": step, "loss": loss, "grad_norm": self.grad_norm, "documents": documents}

        if math.isfinite(loss) and (norm is None or math.isfinite(self.grad_norm)):
            usual = self.spikes.see(loss)
            if usual is not None:
                self.report.incident(
                    "spike", f"the loss of step {step} jumped from {usual:.2f} to {loss:.2f}", **details()
                )
            self.losses.append(loss)
            self.skipped = 0
            return True
        found = f"step {step} has a loss of {loss} and a gradient of norm {self.grad_norm}"
        self.skipped += 1
        if self.config.on_nonfinite == "skip" and self.skipped < MOST_SKIPPED:
            self.report.incident("not finite", f"{found}; its batch is skipped", **details())
            return False
        self.report.incident("not finite", found, **details())
        advice = "set on_nonfinite to skip" if self.skipped < MOST_SKIPPED else f"{MOST_SKIPPED} in a row are too many"
        raise UserError(
            f"{found}; lower the learning rates or max_grad_norm and start over with --restart true, or {advice} "
            f"(the newest checkpoint in {self.checkpoints.folder} is from before)"
        )

    def loss(self, batch: Batch, **kwargs: Any) -> torch.Tensor:
        """Mean cross-entropy of the labels given the tokens before them."""
        input_ids, labels, position_ids = batch.to(self.accelerator.device)
        # ZeRO-3 gathers a matrix only while its own module runs; the loss without logits reads it from outside.
        kwargs["skip_logits"] = self.accelerator.distributed_type != DistributedType.DEEPSPEED
        return self.model(
            input_ids=input_ids,
            labels=labels,
            shift_labels=labels,
            position_ids=position_ids,
            use_cache=False,  # with a cache attention would cross documents
            **kwargs,
        ).loss

    def check_start(self) -> None:
        """Random weights must do about as well as guessing."""
        loss, _ = self.validation_losses()
        complaint = worse_than_chance(loss, self.accelerator.unwrap_model(self.model).config.vocab_size)
        if complaint:
            self.report.incident("worse than chance", complaint, step=0, validation_loss=loss)

    def evaluate(self) -> None:
        """Loss on the validation split, and samples."""
        self.validation_loss, by_folder = self.validation_losses()
        written = ""
        if self.accelerator.is_main_process and not self.sharded:  # one process cannot run a part of a model
            model, config = self.accelerator.unwrap_model(self.model), self.config
            with without_compiling():
                written = samples(model, self.tokenizer, self.prompts, config.sample_tokens, config.seed)
        self.report.validation(self.step, self.validation_loss, by_folder, written)

    def validation_losses(self) -> tuple[float, dict[str, float]]:
        """Mean over the mixture by its shares, and of each member."""
        self.model.eval()
        size = self.config.per_device_train_batch_size
        with without_compiling():
            by_folder = validate(self.loss, self.validation, self.config.eval_sequences, size)
        return float(self.validation.mixture.shares @ list(by_folder.values())), by_folder

    def save(self, validated: bool) -> None:
        """A checkpoint of this step, which may have been validated."""
        finite = validated and math.isfinite(self.validation_loss)
        progress = {
            "step": self.step,
            "validation_loss": self.validation_loss if finite else None,
            "losses": list(self.losses),  # written in another thread
            "seconds": round(self.throughput.seconds, 3),
        }
        if self.sharded:
            save_sharded(self.accelerator, self.model, self.config.tokenizer, self.checkpoints, progress)
        elif self.accelerator.is_main_process:
            self.checkpoints.save(progress, self.state.capture)
