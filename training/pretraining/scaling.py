"""Scaling rules: sizes, batch, steps and learning rates of a pretraining run, derived from its depth.

The rules and their sources. N is the number of parameters in matrix products, output matrix included; B the tokens of a
batch; D the tokens of the whole run.

- Width is 64 per layer, in whole heads of 128 (64 below a width of 256), and D = 12 N. Both from nanochat, which swept
  them (https://github.com/karpathy/nanochat). Chinchilla has 20 tokens per parameter, embeddings included
  (https://arxiv.org/abs/2203.15556).
- B grows as D^0.383, whatever N is: Power Lines (https://arxiv.org/abs/2505.13738). Rounded to a power of two.
- The learning rates of embeddings and output matrix, and all of AdamW's, fall as 1/sqrt(width), as in nanochat. Muon's
  rate stays: its step has the same size relative to a matrix of any width.
- At a given D all rates grow as sqrt(batch) (https://arxiv.org/abs/2205.10287), counted from the B of the rule above.
  At a given B they therefore fall as D^-0.19; https://arxiv.org/abs/2409.19913 measured D^-0.32 for AdamW.
- Weight decay keeps the timescale of the weights, B / (rate * decay * D), the same fraction of every run
  (https://arxiv.org/abs/2405.13698). A run of fewer than 12 N tokens counts as 12 N: it ends before decay can help it.

Two things are our own. The sequence length is about the width, which keeps attention's share of the work the same at
every size. The constants below are those of a quickstart of width 256: four layers and 550 steps give its batch of
4,096 tokens and its rates. They were found on CPUs with models of a few million parameters: at twelve layers the rule
gives 2^16 tokens per batch, where nanochat uses 2^19 on eight GPUs.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from modeling_scratch import PRESETS, ScratchForCausalLM
from modeling_scratch.configuration_scratch import is_number
from training.common.errors import UserError
from training.common.processes import world_size
from training.pretraining.config import PretrainConfig, largest_divisor, next_multiple
from training.pretraining.model import model_config
from training.pretraining.throughput import matrix_parameters
from training.stages.recipe import build

# recipes/quickstart/pretrain.yaml: tokens per batch, tokens of the run, hidden_size
QUICKSTART_BATCH, QUICKSTART_HORIZON, QUICKSTART_WIDTH = 4096, 550 * 4096, 256
SMALLEST_BATCH = QUICKSTART_BATCH  # tokens; the rule was not tested below
TOKENS_PER_PARAMETER = 12  # nanochat
BATCH_EXPONENT = 0.383  # Power Lines
# Fraction of the run. nanochat's: its decay of 0.28 falls to zero, and affects half of the weights at a time.
TIMESCALE = 0.28
# Muon: the best of 0.01, 0.02 and 0.04 in docs/ablations.md. AdamW: the lowest of the rates tried there, not tuned.
MATRIX_RATES = {"muon": 0.02, "adamw": 0.001}
# The quickstart's. Tuned with the first row of docs/ablations.md, to within a factor of two.
EMBEDDING_RATE, HEAD_RATE, SCALAR_RATE = 0.1, 0.004, 0.01


def derive_from_depth(
    config: PretrainConfig, given: dict[str, Any], tokenizer: PreTrainedTokenizerFast, where: str
) -> tuple[PretrainConfig, list[str]]:
    """The recipe with every key that follows from its `depth`, and a line for each of these keys.

    Args:
        config: the recipe as given.
        given: the same as a mapping: only the keys that the recipe file or the command line sets.
        where: the name of the recipe in errors, as for `training.stages.recipe.build`.

    Raises:
        UserError: a given key has no usable value.
    """

    def count(values: dict[str, Any]) -> int:
        with torch.device("meta"):
            return matrix_parameters(ScratchForCausalLM(model_config(build(PretrainConfig, values, where), tokenizer)))

    values, lines = derive(config, given, count)
    return build(PretrainConfig, values, where), lines


def derive(
    config: PretrainConfig, given: dict[str, Any], matrix_parameters: Callable[[dict[str, Any]], int]
) -> tuple[dict[str, Any], list[str]]:
    """Fill in what follows from `config.depth`.

    Args:
        config: the recipe as given, for what does not follow from the depth.
        given: the same as a mapping. Its keys keep their values, and what depends on them is derived from them.
        matrix_parameters: counts the parameters in matrix products of such a mapping, with its sizes settled.

    Returns:
        The mapping with the derived keys, and one line for each with its rule.
    """
    derivation = Derivation(config, given)
    width, length = derivation.settle_sizes()
    horizon = TOKENS_PER_PARAMETER * matrix_parameters(derivation.values)
    batch, tokens = derivation.settle_batch_and_steps(length, horizon)
    derivation.settle_rates(width, batch, tokens, horizon)
    return derivation.values, derivation.lines


def best_batch(tokens: float) -> float:
    """Tokens of the best batch for a run of so many tokens."""
    return QUICKSTART_BATCH * (tokens / QUICKSTART_HORIZON) ** BATCH_EXPONENT


def best_batch_of_steps(steps: int) -> float:
    """Tokens of the best batch for a run of `steps` steps: the batch that is best for `steps` times its own tokens."""
    return (QUICKSTART_BATCH * (steps / QUICKSTART_HORIZON) ** BATCH_EXPONENT) ** (1 / (1 - BATCH_EXPONENT))


def power_of_two(value: float) -> int:
    """The nearest power of two, on a logarithmic scale."""
    return 2 ** round(math.log2(value))


class Derivation:
    """The values settled so far, given or derived, and a line for each that explains it."""

    def __init__(self, config: PretrainConfig, given: dict[str, Any]):
        self.config = config
        self.values = {key: copy.deepcopy(value) for key, value in given.items() if value is not None}
        self.lines: list[str] = []

    def is_given(self, key: str) -> bool:
        """Whether a dotted key has a value already."""
        value: Any = self.values
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                return False
            value = value[part]
        return True

    def settle(self, key: str, value: Any, rule: str) -> Any:
        """The value of a dotted key: the recipe's, or else `value`, which is set.

        Raises:
            UserError: the recipe's value is not a number.
        """
        *parents, leaf = key.split(".")
        target, checked = self.values, self.config
        for parent in parents:
            target, checked = target.setdefault(parent, {}), getattr(checked, parent)
        if leaf in target:
            by_rule, value = value, checked[leaf] if isinstance(checked, dict) else getattr(checked, leaf)
            if not is_number(value) and (value != 0 or parents == ["model"]):
                raise UserError(f"'{key}' takes a number above 0, not {value!r}")
            rule = "given" if value == by_rule else f"given (by the rule {by_rule:,})"
        target[leaf] = value
        self.lines.append(f"  {key:36}{value:>12,}  {rule}")
        return value

    def settle_sizes(self) -> tuple[int, int]:
        """Settle layers, width, heads and sequence length; return width and sequence length."""
        layers = self.settle("model.num_hidden_layers", self.config.depth, "depth")
        head = 128 if 64 * layers >= 256 else 64
        rule = f"64 x layers, in whole heads of {head}"
        width = self.settle("model.hidden_size", math.ceil(64 * layers / head) * head, rule)
        if self.is_given("model.head_dim"):
            head = self.settle("model.head_dim", head, "")
        else:
            head = next((size for size in (head, 64, 32, 16) if width % size == 0), width)
        self.settle("model.num_attention_heads", max(1, int(width // head)), f"heads of {head}")
        length = min(max(power_of_two(width), 256), 2048)
        rule = "about the width, from 256 to 2,048: attention's share of the work stays the same"
        return width, self.settle("sequence_length", length, rule)

    def settle_batch_and_steps(self, length: int, horizon: int) -> tuple[int, int]:
        """Settle both batch sizes and the steps; return the tokens of a batch and of the run.

        Args:
            length: tokens per sequence.
            horizon: tokens of the run by the rule.
        """
        if self.is_given("max_steps"):
            batch = best_batch_of_steps(self.config.max_steps)
            rule = f"best for {self.config.max_steps:,} steps of it"
        else:
            batch, rule = best_batch(horizon), f"best for {horizon / 1e6:,.1f}M tokens"
        sequences = max(1, max(SMALLEST_BATCH, power_of_two(batch)) // length)
        at_once = self.config.per_device_train_batch_size or 1
        sequences = next_multiple(sequences, at_once)
        rule = f"{sequences * length:,} tokens, {rule}: {QUICKSTART_BATCH:,} x (tokens / 2.25M)^{BATCH_EXPONENT} "
        sequences = self.settle("global_batch_size", sequences, rule + "(Power Lines)")
        share = sequences // world_size() or 1  # a batch that the processes cannot share is rejected later
        most = self.config.most_at_once
        at_once = largest_divisor(share, most)
        rule = f"at most {most} sequence{'s' if most > 1 else ''} at once; the rest is accumulated"
        self.settle("per_device_train_batch_size", at_once, rule)
        batch = sequences * length
        parameters = horizon / TOKENS_PER_PARAMETER
        rule = f"{TOKENS_PER_PARAMETER} tokens for each of {parameters / 1e6:,.2f}M matrix parameters (nanochat)"
        return batch, self.settle("max_steps", math.ceil(horizon / batch), rule) * batch

    def settle_rates(self, width: int, batch: int, tokens: int, horizon: int) -> None:
        """Settle learning rates and weight decay.

        Args:
            batch: tokens per batch.
            tokens: of the run.
            horizon: tokens of the run by the rule.
        """
        of_batch = (batch / best_batch(tokens)) ** 0.5
        of_width = (QUICKSTART_WIDTH / width) ** 0.5

        def rate(key: str, base: float, scales_with_width: bool) -> float:
            value = base * of_batch * (of_width if scales_with_width else 1)
            rule = f"{base:g} x sqrt(batch / best batch) = {of_batch:.2f}"
            if scales_with_width:
                rule += f" x sqrt({QUICKSTART_WIDTH} / width) = {of_width:.2f}"
            return self.settle(f"optimizer.{key}", float(f"{value:.3g}"), rule)

        name, config = self.config.optimizer.name, self.config
        matrix_rate = rate("learning_rate", MATRIX_RATES[name], scales_with_width=name == "adamw")
        tied = (PRESETS[config.preset] | config.model).get("tie_word_embeddings", False)
        rate("embedding_learning_rate", HEAD_RATE if tied else EMBEDDING_RATE, scales_with_width=True)
        rate("head_learning_rate", HEAD_RATE, scales_with_width=True)
        rate("scalar_learning_rate", SCALAR_RATE, scales_with_width=False)
        decay = batch / (TIMESCALE * matrix_rate * max(tokens, horizon)) if matrix_rate else 0.0
        rule = f"decays over {TIMESCALE:g} of the run: batch / ({TIMESCALE:g} x learning_rate x tokens)"
        self.settle("optimizer.weight_decay", float(f"{decay:.3g}"), rule)
