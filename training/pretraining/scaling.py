"""One dial: a depth, from which width, horizon, batch and rates of a pretraining follow by published rules.

The rules, and where they are from. N is the number of parameters in matrix products, output matrix included; B the
tokens of a batch, D those of the whole run.

- Width is 64 a layer, in whole heads of 128 (64 below a width of 256), and D = 12 N: nanochat, which swept both
  (https://github.com/karpathy/nanochat). Chinchilla has 20 tokens for every parameter, embeddings included
  (https://arxiv.org/abs/2203.15556).
- B grows as D^0.383, whatever N: Power Lines (https://arxiv.org/abs/2505.13738). Rounded to a power of two.
- The rates of embeddings and output matrix, and all of AdamW's, fall as 1/sqrt(width), as nanochat has it. Muon's rate
  needs no change: its step has the same size relative to a matrix of any width.
- At a given D all rates go as sqrt(batch) (https://arxiv.org/abs/2205.10287), counted from the B of the rule above. So
  at a given B they fall as D^-0.19; https://arxiv.org/abs/2409.19913 measured D^-0.32 for AdamW.
- Weight decay keeps the timescale of the weights, B / (rate * decay * D), the same part of every run
  (https://arxiv.org/abs/2405.13698). A run of fewer than 12 N tokens counts as if it had them: it is over before a
  decay could help it.

What is ours: the sequence length, about the width, which leaves attention's own products the same share of the work at
every size; and the constants. They are those of `recipes/quickstart`: four layers and 550 steps give its batch of
4,096 tokens and its rates. They were found on processors; a network of twelve layers gets 2^16 tokens a batch, where
nanochat takes 2^19 on eight GPUs.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

from modeling_scratch import PRESETS
from modeling_scratch.configuration_scratch import is_number
from training.common.errors import UserError
from training.common.processes import world_size
from training.pretraining.config import PretrainConfig

QUICKSTART_BATCH, QUICKSTART_HORIZON, QUICKSTART_WIDTH = 4096, 550 * 4096, 256  # tokens, tokens, hidden_size
SMALLEST_BATCH = 4096  # tokens
TOKENS_PER_PARAMETER = 12
BATCH_EXPONENT = 0.383
TIMESCALE = 0.28  # of the run; nanochat's: a decay of 0.28 that falls to zero, and of half the weights at a time
MATRIX_RATES = {"muon": 0.02, "adamw": 0.001}
EMBEDDING_RATE, HEAD_RATE, SCALAR_RATE = 0.1, 0.004, 0.01


def best_batch(tokens: float) -> float:
    """Tokens of the best batch for a run of so many."""
    return QUICKSTART_BATCH * (tokens / QUICKSTART_HORIZON) ** BATCH_EXPONENT


def best_batch_of_steps(steps: int) -> float:
    """The same for a run of so many steps: the batch that is best for `steps` times itself."""
    return (QUICKSTART_BATCH * (steps / QUICKSTART_HORIZON) ** BATCH_EXPONENT) ** (1 / (1 - BATCH_EXPONENT))


def power_of_two(value: float) -> int:
    return 2 ** round(math.log2(value))


class Dial:
    """What has been settled: given by the recipe, or derived; and the lines that say so."""

    def __init__(self, config: PretrainConfig, given: dict[str, Any]):
        self.config = config
        self.values = copy.deepcopy(given)
        self.lines: list[str] = []

    def is_given(self, key: str) -> bool:
        """Whether a dotted key is settled already."""
        value: Any = self.values
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                return False
            value = value[part]
        return True

    def settle(self, key: str, value: Any, rule: str) -> Any:
        """The value of a dotted key: what the recipe says, else `value`.

        Raises:
            UserError: the recipe says something else than a number.
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


def derive(
    config: PretrainConfig, given: dict[str, Any], matrix_parameters: Callable[[dict[str, Any]], int]
) -> tuple[dict[str, Any], list[str]]:
    """Fill in what follows from `config.depth`.

    Args:
        config: of the recipe as it was given, for what does not follow from the depth.
        given: the same as a mapping, with nothing but the keys that the recipe or the command line has. What is in it
            stays, and what depends on it is derived from it.
        matrix_parameters: of the network of such a mapping, whose sizes are settled.

    Returns:
        The mapping with the derived keys, and one line for each with its rule.
    """
    dial = Dial(config, given)
    settle = dial.settle
    layers = settle("model.num_hidden_layers", config.depth, "depth")
    head = 128 if 64 * layers >= 256 else 64
    width = settle("model.hidden_size", math.ceil(64 * layers / head) * head, f"64 x layers, in whole heads of {head}")
    if dial.is_given("model.head_dim"):
        head = settle("model.head_dim", head, "")
    else:
        head = next((size for size in (head, 64, 32, 16) if width % size == 0), width)
    settle("model.num_attention_heads", max(1, int(width // head)), f"heads of {head}")
    length = min(max(power_of_two(width), 256), 2048)
    length = settle("sequence_length", length, "about the width, from 256 to 2,048: attention's share stays the same")

    parameters = matrix_parameters(dial.values)
    horizon = TOKENS_PER_PARAMETER * parameters
    if dial.is_given("max_steps"):
        batch = best_batch_of_steps(config.max_steps)
        rule = f"best for {config.max_steps:,} steps of it"
    else:
        batch, rule = best_batch(horizon), f"best for {horizon / 1e6:,.1f}M tokens"
    rows = max(1, max(SMALLEST_BATCH, power_of_two(batch)) // length)
    if dial.is_given("per_device_train_batch_size"):
        rows = math.ceil(rows / config.per_device_train_batch_size) * config.per_device_train_batch_size
    rule = f"{rows * length:,} tokens, {rule}: {QUICKSTART_BATCH:,} x (tokens / 2.25M)^{BATCH_EXPONENT} (Power Lines)"
    rows = settle("global_batch_size", rows, rule)
    share = rows // world_size() or 1  # a batch that cannot be shared is refused later
    at_once = next(count for count in range(min(share, 16), 0, -1) if share % count == 0)
    settle("per_device_train_batch_size", at_once, "at most 16 sequences at once; the rest is accumulated")
    batch = rows * length
    rule = f"{TOKENS_PER_PARAMETER} tokens for each of {parameters / 1e6:,.2f}M matrix parameters (nanochat)"
    steps = settle("max_steps", math.ceil(horizon / batch), rule)

    tokens = steps * batch
    factor = (batch / best_batch(tokens)) ** 0.5
    narrow = (QUICKSTART_WIDTH / width) ** 0.5
    of_batch = f"x sqrt(batch / best batch) = {factor:.2f}"
    of_width = f"x sqrt({QUICKSTART_WIDTH} / width) = {narrow:.2f}"
    name = config.optimizer.name

    def rate(key: str, base: float, scales_with_width: bool) -> float:
        value = base * factor * (narrow if scales_with_width else 1)
        rule = " ".join([f"{base:g}", of_batch, *([of_width] if scales_with_width else [])])
        return settle(f"optimizer.{key}", float(f"{value:.3g}"), rule)

    matrix_rate = rate("learning_rate", MATRIX_RATES[name], scales_with_width=name == "adamw")
    tied = (PRESETS[config.preset] | config.model).get("tie_word_embeddings", False)
    rate("embedding_learning_rate", HEAD_RATE if tied else EMBEDDING_RATE, scales_with_width=True)
    rate("head_learning_rate", HEAD_RATE, scales_with_width=True)
    rate("scalar_learning_rate", SCALAR_RATE, scales_with_width=False)
    decay = batch / (TIMESCALE * matrix_rate * max(tokens, horizon)) if matrix_rate else 0.0
    rule = f"decays over {TIMESCALE:g} of the run: batch / ({TIMESCALE:g} x learning_rate x tokens)"
    settle("optimizer.weight_decay", float(f"{decay:.3g}"), rule)
    return dial.values, dial.lines
