"""The keys of a pretraining recipe."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from training.common.recipe import option, required
from training.data.curriculum import Curriculum
from training.data.mixture import Mixture
from training.optim.config import OptimizerConfig

# What says how and where to train, and what to show of it, but not what is learnt: these may differ when a run goes on.
# `eval_sequences` is none of them: losses over different sequences make no curve, and no best checkpoint.
RUNTIME_KEYS = frozenset(
    {
        "output_dir",
        "tokenizer",  # a path; what lies there is compared by its digest
        # equal up to the rounding of sums
        "per_device_train_batch_size",
        "activation_checkpointing",
        "torch_compile",
        "attn_implementation",
        # records and files
        "logging_steps",
        "eval_steps",
        "save_steps",
        "keep_last",
        "keep_best",
        "async_save",
        "restart",
        "sample_prompts",
        "sample_tokens",
        "report_to",
        "profile",
        "on_nonfinite",  # what to do about a step that a run has not come past, if it was stopped by it
    }
)


@dataclass
class PretrainConfig:
    output_dir: str = required("folder for the trained model and its checkpoints")
    data: dict | str = required(
        "folder of shards, the output of `scratch prepare`; or several, each with its weight: {runs/code/data: 3, "
        "runs/books/data: 1} takes exactly three sequences of code for each one of books"
    )
    tokenizer: str = required("folder of the tokenizer that made the shards")
    curriculum: dict = option(
        dict,
        "other weights than those of data from a share of the run on: {0.8: {runs/code/data: 1, runs/books/data: 1}} "
        "mixes the last fifth evenly",
    )
    depth: int | None = option(
        None, "layers; width, batch, learning rates, weight decay and steps follow, unless they are given too"
    )
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
    packing: Literal["stream", "best_fit"] = option(
        "stream",
        "how documents fill sequences: stream cuts the text wherever a sequence is full; best_fit cuts only documents "
        "longer than a sequence, loses no token, and pads what is left over: little, unless most documents are between "
        "half a sequence and a whole one",
    )
    document_mask: bool = option(
        False, "each document sees only itself: attention and positions start anew where a document does"
    )
    global_batch_size: int = option(32, "sequences per optimizer step, over all processes and accumulation steps")
    per_device_train_batch_size: int = option(16, "sequences that one process takes at once; the rest is accumulated")
    max_grad_norm: float = option(1.0, "clip the gradient to this norm; 0 does not clip")
    on_nonfinite: Literal["stop", "skip"] = option(
        "stop", "when a loss or gradient is not a finite number: stop, or skip the batch"
    )
    bf16: bool | None = option(None, "mixed precision; by default where the processor has bfloat16")
    activation_checkpointing: bool = option(False, "recompute activations in the backward pass to save memory")
    torch_compile: bool | None = option(
        None, "compile layers and loss, which takes seconds; by default in long runs, where there is a compiler"
    )
    attn_implementation: Literal["eager", "sdpa", "flex_attention", "flash_attention_2"] | None = option(
        None, "attention kernel; by default sdpa, but eager for short sequences compiled for a processor"
    )
    seed: int = option(0, "of the weights and of the order of the data")
    logging_steps: int = option(10, "steps between two lines of metrics.jsonl")
    eval_steps: int = option(100, "steps between two validations")
    eval_sequences: int = option(64, "sequences of the validation split, evenly spread, that a validation looks at")
    save_steps: int = option(500, "steps between two checkpoints")
    keep_last: int = option(2, "newest checkpoints to keep")
    keep_best: int = option(0, "checkpoints to keep beside these, of those with the lowest validation loss")
    async_save: bool = option(True, "write checkpoints in a thread while training goes on, from a copy in memory")
    restart: bool = option(False, "start over: discard what an interrupted run left in output_dir")
    sample_prompts: list[str] = option(list, "beginnings to continue at every validation, to watch it learn")
    sample_tokens: int = option(48, "length of these samples")
    report_to: list[Literal["tensorboard", "trackio", "wandb"]] = option(
        list, "trackers that get the figures of metrics.jsonl too: tensorboard, trackio, wandb"
    )
    profile: bool = option(False, "time the parts of some steps and trace every operator, in OUTPUT_DIR/profile")

    @cached_property
    def mixture(self) -> Mixture | Curriculum:
        """Of `data` and `curriculum`. Raises ValueError: a weight or a phase is wrong."""
        if self.curriculum:
            return Curriculum(self.data, self.curriculum, self.max_steps, self.global_batch_size)
        return Mixture(self.data)

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
            "keep_last",
            "sample_tokens",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"'{name}' must be at least 1, not {getattr(self, name)}")
        for name in ("keep_best", "max_grad_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"'{name}' must be at least 0, not {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"'seed' must lie between 0 and {2**32 - 1}, not {self.seed}")
        if self.keep_best and self.save_steps % self.eval_steps and self.eval_steps % self.save_steps:
            raise ValueError(
                f"'keep_best' knows the loss of a checkpoint only where a validation falls on it: one of 'save_steps' "
                f"({self.save_steps}) and 'eval_steps' ({self.eval_steps}) must be a multiple of the other"
            )
        if self.depth is not None and self.depth < 1:
            raise ValueError(f"'depth' must be at least 1, not {self.depth}")
        if (
            self.document_mask
            and self.attn_implementation == "flash_attention_2"
            and self.per_device_train_batch_size > 1
        ):
            raise ValueError(
                "'document_mask': flash_attention_2 tells documents apart only one sequence at a time; set "
                "per_device_train_batch_size to 1 or attn_implementation to sdpa or flex_attention"
            )
        self.mixture  # raises what is wrong with it
