"""Train a language model from random weights on the token shards of `scratch prepare`.

One process: scratch pretrain --config recipes/quickstart/pretrain.yaml
Several:     accelerate launch --config_file recipes/accelerate/ddp.yaml -m training.pretrain --config RECIPE

Interrupted, it goes on from its newest checkpoint when the same command is given again.
"""

import math
import re
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerFast

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from training.data.loader import TokenLoader
from training.data.shards import check_tokenizer, open_shards
from training.engine.checkpoint import export_model, newest_checkpoint, save_checkpoint
from training.engine.device import has_bf16, pick_attention, pick_device
from training.engine.hub import generation_config, special_token_ids
from training.engine.metrics import MetricsLog, read_metrics
from training.engine.progress import progress_bar
from training.engine.signals import Interrupted, StopSignals
from training.engine.stage import Stage, check_stage, digest
from training.engine.vocabulary import open_tokenizer
from training.errors import UserError
from training.insight.plots import plot_losses
from training.optim.build import OptimizerConfig, build_optimizer
from training.optim.schedule import learning_rate_factor
from training.recipe import option, parse, required


@dataclass
class PretrainConfig:
    output_dir: str = required("folder for the trained model and its checkpoints")
    data: str = required("folder of shards, the output of `scratch prepare`")
    tokenizer: str = required("folder of the tokenizer that made the shards")
    preset: Literal["scratch", "llama", "qwen3", "gpt2"] = option(
        "scratch", "kind of network: scratch, llama, qwen3 or gpt2"
    )
    model: dict = option(dict, "sizes and other dials of ScratchConfig, such as hidden_size")
    pad_vocab_to_multiple_of: int = option(
        64, "rows of the embedding: the tokenizer's size rounded up to a multiple of this, to suit matrix products"
    )
    optimizer: OptimizerConfig = option(OptimizerConfig, "how the weights learn")
    max_steps: int = option(1000, "optimizer steps")
    sequence_length: int = option(256, "tokens per sequence")
    global_batch_size: int = option(32, "sequences per optimizer step, over all processes and accumulation steps")
    per_device_train_batch_size: int = option(16, "sequences that one process takes at once; the rest is accumulated")
    max_grad_norm: float = option(1.0, "clip the gradient to this norm; 0 does not clip")
    bf16: bool | None = option(None, "mixed precision; by default where the processor has bfloat16")
    activation_checkpointing: bool = option(False, "recompute activations in the backward pass to save memory")
    torch_compile: bool = option(False, "compile layers and loss; takes seconds, and a C++ compiler on a processor")
    attn_implementation: Literal["eager", "sdpa", "flex_attention", "flash_attention_2"] | None = option(
        None, "attention kernel; by default sdpa, but eager for short sequences compiled for a processor"
    )
    seed: int = option(0, "of the weights and of the order of the data")
    logging_steps: int = option(10, "steps between two lines of metrics.jsonl")
    eval_steps: int = option(100, "steps between two validations")
    eval_sequences: int = option(64, "sequences of the validation split, evenly spread, that a validation looks at")
    save_steps: int = option(500, "steps between two checkpoints")
    save_total_limit: int = option(2, "checkpoints to keep")
    sample_prompts: list[str] = option(list, "beginnings to continue at every validation, to watch it learn")
    sample_tokens: int = option(48, "length of these samples")

    def __post_init__(self):
        for name in (
            "pad_vocab_to_multiple_of",
            "max_steps",
            "sequence_length",
            "global_batch_size",
            "per_device_train_batch_size",
            "logging_steps",
            "eval_steps",
            "eval_sequences",
            "save_steps",
            "save_total_limit",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"'{name}' must be at least 1, not {getattr(self, name)}")


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> ScratchForCausalLM:
    """The network with random weights.

    Raises:
        UserError: a dial of `model` is unknown or wrong, or the vocabulary is smaller than the tokenizer's.
    """
    rows = math.ceil(len(tokenizer) / config.pad_vocab_to_multiple_of) * config.pad_vocab_to_multiple_of
    dials = {"vocab_size": rows, "max_position_embeddings": config.sequence_length} | config.model
    try:
        model_config = ScratchConfig.from_preset(config.preset, **(special_token_ids(tokenizer) | dials))
    except (ValueError, StrictDataclassError) as error:
        raise UserError(_wrong_dial(error, dials)) from None
    if model_config.vocab_size < len(tokenizer):
        raise UserError(
            f"'model.vocab_size': {model_config.vocab_size} is smaller than the tokenizer's {len(tokenizer)} tokens; "
            "leave it out or raise it"
        )
    if model_config.max_position_embeddings < config.sequence_length:
        raise UserError(
            f"'sequence_length': {config.sequence_length} exceeds model.max_position_embeddings "
            f"({model_config.max_position_embeddings})"
        )
    fastest = pick_attention(pick_device(), config.sequence_length, config.torch_compile)
    set_seed(config.seed)
    model = ScratchForCausalLM._from_config(model_config, attn_implementation=config.attn_implementation or fastest)
    model.generation_config = generation_config(tokenizer, model_config.vocab_size)  # for the samples
    return model.float()


def _wrong_dial(error: Exception, dials: dict[str, Any]) -> str:
    """What is wrong with a dial: transformers' strict configurations wrap it in how they found it."""
    cause = error.__cause__ or error
    field = re.match(r"Validation error for field '(\w+)'", str(error))
    if field and isinstance(cause, TypeError):
        kind = ScratchConfig.__annotations__[field[1]]
        return f"'model.{field[1]}' takes {getattr(kind, '__name__', kind)}, not {dials.get(field[1])!r}"
    return f"'model{f'.{field[1]}' if field else ''}': {' '.join(str(cause).split())}"


def known_prompts(prompts: list[str], tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The prompts that the tokenizer can read: a character-level one knows only the characters of its own text."""
    known = []
    for prompt in prompts:
        try:
            tokenizer(prompt)
        except Exception as error:  # tokenizers raises nothing narrower
            print(f"pretrain: the sample prompt {prompt!r} is left out: {error}")
        else:
            known.append(prompt)
    return known


def build_accelerator(config: PretrainConfig) -> Accelerator:
    bf16 = has_bf16(pick_device()) if config.bf16 is None else config.bf16
    accelerator = Accelerator(mixed_precision="bf16" if bf16 else "no")
    rows = config.per_device_train_batch_size * accelerator.num_processes
    if config.global_batch_size % rows:
        raise UserError(
            f"'global_batch_size': {config.global_batch_size} is not a multiple of per_device_train_batch_size "
            f"({config.per_device_train_batch_size}) x processes ({accelerator.num_processes})"
        )
    accelerator.gradient_accumulation_steps = config.global_batch_size // rows
    return accelerator


class Pretraining:
    """The loop and what it holds: model, optimizer, data and the step it has reached."""

    def __init__(
        self, config: PretrainConfig, folder: Path, tokenizer: PreTrainedTokenizerFast, accelerator: Accelerator
    ):
        self.config, self.folder, self.tokenizer, self.accelerator = config, folder, tokenizer, accelerator
        self.train = TokenLoader(
            open_shards(config.data, "train"), config.sequence_length, config.global_batch_size, config.seed
        )
        self.validation = TokenLoader(open_shards(config.data, "validation"), config.sequence_length, 1, config.seed)
        model = build_model(config, tokenizer)
        if config.activation_checkpointing:
            model.activation_checkpointing_enable()
        model.to(accelerator.device)
        if config.torch_compile:
            model.compile_regions()
        self.model, self.optimizer = accelerator.prepare(model, build_optimizer(model, config.optimizer))
        self.prompts = known_prompts(config.sample_prompts, tokenizer)
        self.tokens_per_step = config.global_batch_size * config.sequence_length
        self.step, self.validation_loss = 0, float("nan")

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one.

        Raises:
            UserError: it is damaged.
        """
        newest = newest_checkpoint(self.checkpoints)
        if newest:
            checkpoint, progress = newest
            try:
                self.accelerator.load_state(str(checkpoint / "state"))
            except (OSError, EOFError, RuntimeError, SafetensorError, UnpicklingError) as error:
                raise UserError(
                    f"{checkpoint} cannot be read ({' '.join(str(error).split())}); if it is damaged, delete it, and "
                    "the same command goes on from the one before"
                ) from None
            self.step, self.validation_loss = progress["step"], progress["validation_loss"]
            self.accelerator.print(f"pretrain: going on from step {self.step} ({checkpoint})")

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def run(self, stage: Stage) -> None:
        """Train to `max_steps`.

        Raises:
            Interrupted: a signal came; a checkpoint of the last whole step is written.
        """
        config, accelerator = self.config, self.accelerator
        if accelerator.is_main_process:
            log = MetricsLog(self.folder / "metrics.jsonl", self.step)
        bar = progress_bar(
            total=config.max_steps,
            initial=self.step,
            unit="step",
            disable=None if accelerator.is_main_process else True,
        )
        since, since_step, losses = time.monotonic(), self.step, []
        with StopSignals() as stop:
            while self.step < config.max_steps:
                losses.append(self.train_step())
                last = self.step == config.max_steps
                if self.step % config.logging_steps == 0 or last:
                    rate = (self.step - since_step) * self.tokens_per_step / (time.monotonic() - since)
                    loss = torch.stack(losses).mean().item()
                    if accelerator.is_main_process:
                        learning_rate = self.optimizer.param_groups[0]["lr"]
                        log.write(self.progress(loss=loss, learning_rate=learning_rate, tokens_per_second=round(rate)))
                    bar.set_postfix_str(f"loss {loss:.3f}, {rate:,.0f} tokens/s", refresh=False)
                    since, since_step, losses = time.monotonic(), self.step, []
                bar.update()
                if self.step % config.eval_steps == 0 or last:
                    paused = time.monotonic()
                    self.validation_loss = self.evaluate()
                    if accelerator.is_main_process:
                        log.write(self.progress(validation_loss=self.validation_loss))
                        bar.write(f"step {self.step}: validation loss {self.validation_loss:.3f}{self.samples()}")
                    since += time.monotonic() - paused
                if self.step % config.save_steps == 0 or last or stop.received:
                    paused = time.monotonic()
                    self.save()
                    if accelerator.is_main_process:
                        stage.heartbeat()
                    since += time.monotonic() - paused
                if stop.received and not last:
                    bar.close()
                    raise Interrupted(
                        stop.received, f"stopped after step {self.step}, saved; the same command goes on from there"
                    )
        bar.close()

    def progress(self, **figures: float) -> dict[str, float]:
        """A record of metrics.jsonl."""
        return {"step": self.step, "tokens": self.step * self.tokens_per_step, **figures}

    def train_step(self) -> torch.Tensor:
        """One optimizer step over one global batch. Returns the mean loss of its tokens, before the step."""
        config, accelerator = self.config, self.accelerator
        self.model.train()
        optimizer_config = config.optimizer
        factor = learning_rate_factor(
            self.step,
            config.max_steps,
            optimizer_config.schedule,
            optimizer_config.warmup_steps,
            optimizer_config.decay_fraction,
            optimizer_config.final_fraction,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        windows = self.train.windows(self.step)[accelerator.process_index :: accelerator.num_processes]
        total = torch.zeros((), device=accelerator.device)
        for rows in range(0, len(windows), config.per_device_train_batch_size):
            tokens = self.train.read(windows[rows : rows + config.per_device_train_batch_size]).to(accelerator.device)
            with accelerator.accumulate(self.model):
                # Sum over tokens divided by the tokens of the whole global batch: unequal parts still add up rightly.
                loss = self.loss(tokens, num_items_in_batch=self.tokens_per_step)
                total += loss.detach()
                # Undo the division by the accumulation steps (backward) and by the processes (gradient averaging).
                accelerator.backward(loss * accelerator.gradient_accumulation_steps * accelerator.num_processes)
                if accelerator.sync_gradients and config.max_grad_norm:
                    accelerator.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
        self.step += 1
        total = accelerator.reduce(total, reduction="sum")
        if not math.isfinite(total.item()):
            raise UserError(
                f"the loss of step {self.step} is {total.item()}; lower the learning rates or max_grad_norm "
                f"(the newest checkpoint in {self.checkpoints} is from before)"
            )
        return total

    def loss(self, tokens: torch.LongTensor, **kwargs: Any) -> torch.Tensor:
        """Mean cross-entropy of each token given those before it; `tokens` is (batch, seq + 1)."""
        inputs, labels = tokens[:, :-1], tokens[:, 1:].contiguous()
        # ZeRO-3 gathers a matrix only while its own module runs; the loss without logits reads it from outside.
        kwargs["skip_logits"] = self.accelerator.distributed_type != DistributedType.DEEPSPEED
        return self.model(input_ids=inputs, labels=labels, shift_labels=labels, use_cache=False, **kwargs).loss

    @torch.no_grad()
    def evaluate(self) -> float:
        """Mean loss over `eval_sequences` windows, always the same, spread evenly over the validation split."""
        self.model.eval()
        config, accelerator = self.config, self.accelerator
        count = min(config.eval_sequences, self.validation.num_windows)
        windows = torch.linspace(0, self.validation.num_windows - 1, count).long().numpy()
        # Every process scores the same windows: a sharded model needs all of them in each forward pass.
        total = 0.0
        for rows in range(0, count, config.per_device_train_batch_size):
            tokens = self.validation.read(windows[rows : rows + config.per_device_train_batch_size])
            total += self.loss(tokens.to(accelerator.device)).item() * len(tokens)
        return total / count

    @torch.no_grad()
    def samples(self) -> str:
        """Continuations of the sample prompts, as lines to print. Leaves the random state as it was."""
        if self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
            return ""  # one process alone cannot run a model that is sharded over several
        model, text = self.accelerator.unwrap_model(self.model), ""
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            for prompt in self.prompts:
                inputs = self.tokenizer(prompt, return_tensors="pt").to(self.accelerator.device)
                output = model.generate(
                    **inputs, do_sample=True, temperature=0.8, top_k=50, max_new_tokens=self.config.sample_tokens
                )
                lines = self.tokenizer.decode(output[0], skip_special_tokens=True).splitlines()
                text += "\n" + "\n".join(f"    | {line}" for line in lines)
        return text

    def save(self) -> None:
        progress = {"step": self.step, "validation_loss": self.validation_loss}
        save_checkpoint(
            self.accelerator,
            self.model,
            self.config.tokenizer,
            self.checkpoints,
            progress,
            keep=self.config.save_total_limit,
        )


def main(arguments: list[str]) -> None:
    config = parse(PretrainConfig, arguments, __doc__)
    check_stage(config.data, "prepare", key="data")
    check_stage(config.tokenizer, "tokenizer", key="tokenizer")
    tokenizer = open_tokenizer(config.tokenizer, "tokenizer")
    check_tokenizer(config.data, config.tokenizer)
    inputs = {"data": digest(config.data, "data"), "tokenizer": digest(config.tokenizer, "tokenizer")}
    stage = Stage("pretrain", config.output_dir, config, inputs, arguments)
    if stage.is_current():
        return
    accelerator = build_accelerator(config)
    training = Pretraining(config, stage.folder, tokenizer, accelerator)
    # Only now, with all of the recipe known to be right: this discards the checkpoints of another recipe.
    if accelerator.is_main_process:
        stage.begin()
    accelerator.wait_for_everyone()
    training.resume()
    parameters = sum(parameter.numel() for parameter in accelerator.unwrap_model(training.model).parameters())
    tokens = config.max_steps * training.tokens_per_step
    accelerator.print(
        f"pretrain: {parameters / 1e6:.1f}M parameters; {tokens / 1e6:.1f}M tokens of "
        f"{len(training.train.tokens) / 1e6:.1f}M in the shards; {accelerator.num_processes} x {accelerator.device}, "
        f"precision {accelerator.mixed_precision}, {accelerator.gradient_accumulation_steps} accumulation steps"
    )
    training.run(stage)
    export_model(accelerator, training.model, config.tokenizer, stage.folder)
    if accelerator.is_main_process:
        records = read_metrics(stage.folder / "metrics.jsonl")
        plot_losses(records, stage.folder / "loss.png", f"{parameters / 1e6:.1f}M parameters")
        metrics = {
            "parameters": parameters,
            "tokens": tokens,
            "validation_loss": training.validation_loss,
            "tokens_per_second": statistics.median(r["tokens_per_second"] for r in records if "loss" in r),
        }
        stage.finish(metrics, wrote="model, checkpoints, metrics.jsonl, loss.png")
    accelerator.end_training()


if __name__ == "__main__":  # as `accelerate launch -m training.pretrain` does
    from training.cli import main as scratch

    sys.exit(scratch(["pretrain", *sys.argv[1:]]))
