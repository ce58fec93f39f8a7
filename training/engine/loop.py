"""The pretraining loop: batches to gradients to steps, with validations, samples and checkpoints between them."""

import math
import statistics
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from training.data.loader import Batch, TokenLoader
from training.data.mixture import Mixture
from training.data.packing import IGNORED
from training.engine.build import build_model, known_prompts
from training.engine.checkpoint import Checkpoints
from training.engine.config import PretrainConfig
from training.engine.guards import LossSpikes, worse_than_chance
from training.engine.metrics import MetricsLog, as_duration, in_words
from training.engine.profile import Profiler, Spans, span_parts
from training.engine.progress import progress_bar
from training.engine.randomness import seed_step
from training.engine.signals import Interrupted, StopSignals
from training.engine.stage import Stage
from training.engine.state import TrainingState, check_layout, is_sharded, load_sharded, save_sharded
from training.engine.throughput import Throughput, matrix_product_rate, operations_per_token
from training.errors import UserError
from training.optim.build import build_optimizer
from training.optim.schedule import learning_rate_factor


class Pretraining:
    """The loop and what it holds: model, optimizer, data and the step it has reached."""

    def __init__(
        self, config: PretrainConfig, folder: Path, tokenizer: PreTrainedTokenizerFast, accelerator: Accelerator
    ):
        self.config, self.folder, self.tokenizer, self.accelerator = config, folder, tokenizer, accelerator
        mixture = Mixture(config.data)
        self.train, self.validation = (
            TokenLoader.open(
                mixture, split, config.packing, config.sequence_length, rows, config.seed, config.document_mask
            )
            for split, rows in (("train", config.global_batch_size), ("validation", 1))
        )
        # A loss in nats per token times this is bits per byte of text.
        loaders = {"train": self.train, "validation": self.validation}
        self.bits = {split: 1 / (loader.bytes_per_token * math.log(2)) for split, loader in loaders.items()}
        model = build_model(config, tokenizer)
        if config.activation_checkpointing:
            model.activation_checkpointing_enable()
        model.to(accelerator.device)
        if config.torch_compile:
            model.compile_regions()
        self.span = Spans(accelerator.device) if config.profile else nullcontext
        if config.profile:
            span_parts(model, self.span)
        operations = operations_per_token(model, model.config, config.sequence_length)
        self.model, self.optimizer = accelerator.prepare(model, build_optimizer(model, config.optimizer))
        self.prompts = known_prompts(config.sample_prompts, tokenizer)
        self.tokens_per_step = config.global_batch_size * config.sequence_length
        dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
        rate = matrix_product_rate(accelerator.device, dtype) * accelerator.num_processes
        self.throughput = Throughput(accelerator.device, self.tokens_per_step, operations, rate)
        self.step, self.validation_loss = 0, float("nan")
        self.losses: list[float] = []  # of the steps since the last line of metrics.jsonl
        self.spikes = LossSpikes()
        self.validation_losses: dict[str, float] = {}  # of each member of a mixture
        self.stop = StopSignals()
        self.stopped_by: int | None = None  # the signal that all processes heed after this step
        self.sharded = is_sharded(accelerator)
        asynchronous = config.async_save and not self.sharded
        self.logs = [folder / "metrics.jsonl", folder / "incidents.jsonl"]
        self.checkpoints = Checkpoints(
            folder / "checkpoints", config.keep_last, config.keep_best, asynchronous, self.logs
        )
        if not self.sharded:
            whole = accelerator.unwrap_model(self.model)
            self.state = TrainingState(whole, self.optimizer.optimizer, config.tokenizer, copied=asynchronous)

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
        config, accelerator = self.config, self.accelerator
        if accelerator.is_main_process:
            log, self.incidents = (MetricsLog(file, self.step) for file in self.logs)
        if self.step == 0:
            self.check_start()
        bar = progress_bar(
            total=config.max_steps,
            initial=self.step,
            unit="step",
            disable=None if accelerator.is_main_process else True,
        )
        profiler = None
        if config.profile and accelerator.is_main_process:
            profiler = Profiler(self.folder / "profile", self.span)
        self.throughput.start(self.step)
        with self.stop, self.checkpoints:
            while self.step < config.max_steps:
                self.train_step()
                self.checkpoints.check()
                last = self.step == config.max_steps
                if self.losses and (self.step % config.logging_steps == 0 or last):
                    with self.span("logging"):
                        record = self.training_record()
                        if accelerator.is_main_process:
                            self.write(log, record)
                            bar.set_postfix_str(in_words(record), refresh=False)
                            if bar.disable:  # no terminal: lines that a scheduler's log shows
                                left = as_duration(self.throughput.time_left(self.step, config.max_steps))
                                bar.write(f"step {self.step}/{config.max_steps}: {in_words(record)}, {left} left")
                        self.losses = []
                bar.update()
                validated = self.step % config.eval_steps == 0 or last
                if validated:
                    with self.span("evaluation"), self.throughput.paused():
                        self.validation_loss = self.evaluate()
                        if accelerator.is_main_process:
                            record = self.validation_record()
                            self.write(log, record)
                            bits = record["validation_bits_per_byte"]
                            sentence = f"validation loss {self.validation_loss:.3f}, {bits:.3f} bits/byte"
                            bar.write(f"step {self.step}: {sentence}{self.samples()}")
                if self.step % config.save_steps == 0 or last or self.stopped_by:
                    with self.span("checkpointing"), self.throughput.paused():
                        self.save(validated)
                        if accelerator.is_main_process:
                            stage.heartbeat()
                if profiler:
                    with self.throughput.paused():
                        bar.write(profiler.step(), end="")
                if self.stopped_by and not last:
                    bar.close()
                    self.checkpoints.wait()
                    raise Interrupted(
                        self.stopped_by, f"stopped after step {self.step}, saved; the same command goes on from there"
                    )
        bar.close()
        if profiler:
            bar.write(profiler.finish(), end="")

    def training_record(self) -> dict[str, float]:
        """What metrics.jsonl and the trackers get at a logging step."""
        loss = statistics.fmean(self.losses)
        return self.progress(
            loss=loss,
            bits_per_byte=loss * self.bits["train"],
            learning_rate=self.optimizer.param_groups[0]["lr"],
            grad_norm=self.grad_norm,
            **self.throughput.read(self.step),
        )

    def validation_record(self) -> dict[str, float]:
        loss = self.validation_loss
        bits = loss * self.bits["validation"]
        return self.progress(validation_loss=loss, validation_bits_per_byte=bits, **self.validation_losses)

    def progress(self, **figures: float) -> dict[str, float]:
        """A record of metrics.jsonl."""
        seconds = round(self.throughput.seconds, 3)
        return {"step": self.step, "tokens": self.step * self.tokens_per_step, "seconds": seconds, **figures}

    def write(self, log: MetricsLog, record: dict[str, float]) -> None:
        log.write(record)
        self.accelerator.log({name: value for name, value in record.items() if name != "step"}, step=self.step)

    def check_start(self) -> None:
        """Random weights must do about as well as guessing."""
        loss = self.evaluate()
        complaint = worse_than_chance(loss, self.accelerator.unwrap_model(self.model).config.vocab_size)
        if complaint:
            self.report("worse than chance", complaint, step=0, validation_loss=loss)

    def report(self, kind: str, sentence: str, **details: Any) -> None:
        """Note an incident in incidents.jsonl, and print it."""
        if self.accelerator.is_main_process:
            self.incidents.write({"incident": kind, **details})
            tqdm.write(f"pretrain: {sentence} (incidents.jsonl)")

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
            windows, num_predictions = self.train.windows(self.step), self.train.num_predictions(self.step)
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
                        sums = torch.cat([total.view(1), self.stop.wishes().to(total)])
                        loss, *wishes = accelerator.reduce(sums, reduction="sum").tolist()
                        self.stopped_by = self.stop.agreed(wishes)
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
                self.report("spike", f"the loss of step {step} jumped from {usual:.2f} to {loss:.2f}", **details())
            self.losses.append(loss)
            return True
        found = f"step {step} has a loss of {loss} and a gradient of norm {self.grad_norm}"
        if self.config.on_nonfinite == "skip":
            self.report("not finite", f"{found}; its batch is skipped", **details())
            return False
        self.report("not finite", found, **details())
        raise UserError(
            f"{found}; lower the learning rates or max_grad_norm, or set on_nonfinite to skip "
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

    @torch.no_grad()
    def evaluate(self) -> float:
        """Mean loss of the tokens of `eval_sequences` rows of the validation split, always the same.

        Of a mixture the mean over its members by their shares; the loss of each is kept in `validation_losses`.
        """
        self.model.eval()
        losses, mixture, size = [], self.validation.mixture, self.config.per_device_train_batch_size
        # Every process scores the same rows: a sharded model needs all of them in each forward pass.
        for rows in self.validation.spread(self.config.eval_sequences):
            total, scored = 0.0, 0
            for start in range(0, len(rows), size):
                batch = self.validation.read(rows[start : start + size])
                count = int((batch.labels != IGNORED).sum())
                total += self.loss(batch).item() * count
                scored += count
            losses.append(total / scored)
        if len(losses) > 1:
            named = zip(mixture.folders, losses, strict=True)
            self.validation_losses = {f"validation_loss/{folder}": loss for folder, loss in named}
        return float(mixture.shares @ losses)

    @torch.no_grad()
    def samples(self) -> str:
        """Continuations of the sample prompts, as lines to print: always drawn from the same random numbers."""
        if self.sharded:
            return ""  # one process alone cannot run a model that is sharded over several
        model, text = self.accelerator.unwrap_model(self.model), ""
        torch.manual_seed(self.config.seed)  # the next training step seeds anew
        for prompt in self.prompts:
            inputs = self.tokenizer(prompt, return_tensors="pt").to(self.accelerator.device)
            output = model.generate(
                **inputs, do_sample=True, temperature=0.8, top_k=50, max_new_tokens=self.config.sample_tokens
            )
            lines = self.tokenizer.decode(output[0], skip_special_tokens=True).splitlines()
            text += "\n" + "\n".join(f"    | {line}" for line in lines)
        return text

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
