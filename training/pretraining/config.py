"""The recipe keys of `scratch pretrain`."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from training.data.curriculum import Curriculum
from training.data.mixture import Mixture
from training.insight.config import InsightConfig
from training.optim.config import OptimizerConfig
from training.stages.recipe import PathText, option, required

# Keys that affect how and where a run trains and what it logs, but not what it learns: they may differ when a run
# resumes. `eval_sequences` is not one of them: losses over different sequences cannot be compared.
RUNTIME_KEYS = frozenset(
    {
        "tokenizer",  # a path; the digest of its content is compared
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
        "sample_prompts",
        "sample_tokens",
        "report_to",
        "profile",
        "insight",
        "on_nonfinite",  # the reaction to a bad step: a run stopped by one may resume with another
    }
)


DEFAULT_BATCH = 32  # sequences
MOST_AT_ONCE = 16  # sequences, unless the recipe says more


def next_multiple(number: int, unit: int) -> int:
    """The smallest multiple of `unit` that is not below `number`."""
    return -(-number // unit) * unit


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is at most `most`."""
    return next(count for count in range(min(number, most), 0, -1) if number % count == 0)


@dataclass(kw_only=True)
class PretrainConfig:
    """A pretraining recipe: the model, its data, how it is trained and what is kept.

    Steps are optimizer steps, each over one global batch of `global_batch_size` sequences of `sequence_length` tokens.

    Raises:
        ValueError: keys that do not fit together, or a mixture or curriculum that is wrong.
    """

    output_dir: PathText = required("folder for the trained model and its checkpoints", group="Folders")
    tokenizer: PathText = required("folder of the tokenizer that the shards were made with", group="Folders")
    preset: Literal["scratch", "llama", "qwen3", "gpt2"] = option(
        "scratch", "architecture to start from", group="Model"
    )
    model: dict = option(dict, "sizes and other ScratchConfig options, such as hidden_size: 256", group="Model")
    depth: int | None = option(
        None,
        "number of layers; width, batch, learning rates, weight decay and steps are derived from it unless given",
        at_least=1,
        group="Model",
    )
    pad_vocab_to_multiple_of: int = option(
        64,
        "multiple that the number of embedding rows is rounded up to, for fast matrix products",
        at_least=1,
        group="Model",
    )
    data: dict[PathText, Any] | PathText = required(
        "folder of shards from `scratch prepare`, or folders with weights: {runs/code/data: 3, runs/books/data: 1} "
        "takes three sequences of code for each one of books",
        group="Data",
    )
    curriculum: dict[Any, dict[PathText, Any] | PathText] = option(
        dict,
        "weights from a fraction of the run on: {0.8: {runs/code/data: 1, runs/books/data: 1}} changes them for the "
        "last fifth",
        group="Data",
    )
    packing: Literal["stream", "best_fit"] = option(
        "stream",
        "how documents fill sequences: stream cuts the text wherever a sequence is full; best_fit cuts only documents "
        "longer than a sequence and pads the rest",
        group="Data",
    )
    document_mask: bool = option(
        False, "restart attention and positions at every document, so that none attends to another", group="Data"
    )
    max_steps: int = option(1000, "optimizer steps of the run", at_least=1, group="Batch and steps")
    sequence_length: int = option(256, "tokens per sequence", at_least=1, group="Batch and steps")
    global_batch_size: int | None = option(
        None,
        "sequences per optimizer step, over all processes and accumulation steps (default: 32, or the next multiple "
        "of per_device_train_batch_size)",
        at_least=1,
        group="Batch and steps",
    )
    per_device_train_batch_size: int | None = option(
        None,
        "sequences per process and forward pass; the rest of the batch is accumulated (default: as many as divide the "
        "batch, at most 16)",
        at_least=1,
        group="Batch and steps",
    )
    optimizer: OptimizerConfig = option(OptimizerConfig, "Optimizer")
    max_grad_norm: float = option(
        1.0, "norm to which gradients are clipped; 0 turns clipping off", at_least=0, group="Optimizer"
    )
    on_nonfinite: Literal["stop", "skip"] = option(
        "stop", "reaction to a NaN or infinite loss or gradient: stop the run, or skip the batch", group="Optimizer"
    )
    bf16: bool | None = option(None, "bfloat16 mixed precision (default: where the device supports it)", group="Speed")
    torch_compile: bool | None = option(
        None, "compile layers and loss (default: in long runs, where a compiler is installed)", group="Speed"
    )
    attn_implementation: Literal["eager", "blockwise", "sdpa", "flex_attention", "flash_attention_2"] | None = option(
        None, "attention kernel (default: sdpa; blockwise for short sequences compiled for a CPU)", group="Speed"
    )
    activation_checkpointing: bool = option(
        False, "recompute activations in the backward pass to save memory", group="Speed"
    )
    profile: bool = option(
        False, "time the parts of some steps and trace every operator, in OUTPUT_DIR/profile", group="Speed"
    )
    save_steps: int = option(500, "optimizer steps between checkpoints", at_least=1, group="Checkpoints and logs")
    keep_last: int = option(2, "number of newest checkpoints to keep", at_least=1, group="Checkpoints and logs")
    keep_best: int = option(
        0,
        "number of checkpoints with the lowest validation loss to keep as well",
        at_least=0,
        group="Checkpoints and logs",
    )
    async_save: bool = option(
        True, "write checkpoints from a copy in memory while training continues", group="Checkpoints and logs"
    )
    logging_steps: int = option(
        10, "optimizer steps between training records in metrics.jsonl", at_least=1, group="Checkpoints and logs"
    )
    eval_steps: int = option(100, "optimizer steps between validations", at_least=1, group="Checkpoints and logs")
    eval_sequences: int = option(
        64,
        "sequences per validation, spread evenly over the validation split",
        at_least=1,
        group="Checkpoints and logs",
    )
    sample_prompts: list[str] = option(
        list, "prompts that the model continues at every validation", group="Checkpoints and logs"
    )
    sample_tokens: int = option(48, "tokens per continuation", at_least=1, group="Checkpoints and logs")
    report_to: list[Literal["tensorboard", "trackio", "wandb"]] = option(
        list, "trackers that also receive the records of metrics.jsonl", group="Checkpoints and logs"
    )
    insight: InsightConfig = option(InsightConfig, "Attention during training")
    seed: int = option(
        0, "seed of the initial weights, the data order and dropout", at_least=0, below=2**32, group="Reproducibility"
    )

    def sequences_at_once(self, processes: int, readers: str = "processes") -> int:
        """Sequences per process and forward pass: `per_device_train_batch_size`, or its default.

        Args:
            processes: that read different sequences.
            readers: what the error message calls them.

        Raises:
            ValueError: the batch cannot be divided into so many for each process.
        """
        size, unit = self.per_device_train_batch_size, (self.per_device_train_batch_size or 1) * processes
        if self.global_batch_size % unit:
            divisor = f"per_device_train_batch_size ({size}) x {readers}" if size else f"the number of {readers}"
            raise ValueError(
                f"'global_batch_size': {self.global_batch_size} is not a multiple of {divisor} ({processes}); set it "
                f"to {next_multiple(self.global_batch_size, unit)}"
            )
        return size or largest_divisor(self.global_batch_size // processes, self.most_at_once)

    @property
    def most_at_once(self) -> int:
        """Sequences per process and forward pass that the default does not exceed."""
        return 1 if self.document_mask and self.attn_implementation == "flash_attention_2" else MOST_AT_ONCE

    @cached_property
    def mixture(self) -> Mixture | Curriculum:
        """The mixture of `data` and `curriculum`. Raises ValueError: a weight or a phase is wrong."""
        if self.curriculum:
            return Curriculum(self.data, self.curriculum, self.max_steps, self.global_batch_size)
        return Mixture(self.data)

    def __post_init__(self):
        if self.global_batch_size is None:
            self.global_batch_size = next_multiple(DEFAULT_BATCH, self.per_device_train_batch_size or 1)
        if self.keep_best and self.save_steps % self.eval_steps and self.eval_steps % self.save_steps:
            raise ValueError(
                f"'keep_best' needs validations at checkpoints; make one of 'save_steps' ({self.save_steps}) and "
                f"'eval_steps' ({self.eval_steps}) a multiple of the other"
            )
        at_once = self.sequences_at_once(processes=1)
        if at_once > 1 == self.most_at_once:
            raise ValueError(
                "'document_mask': flash_attention_2 separates documents only in batches of one sequence; set "
                "per_device_train_batch_size to 1, or attn_implementation to sdpa or flex_attention"
            )
        self.mixture  # raises if it is wrong
