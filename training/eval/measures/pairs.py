"""Preference accuracy: how often a model finds the chosen answer more likely than the rejected one."""

import random

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.common.errors import UserError
from training.eval.measures.continuations import score_continuations
from training.eval.measures.figures import ACCURACY, MARGIN, ItemOutcome, MeasureResult, MetricKey, figure_of, identify
from training.eval.measures.measure import Candidate, LoadedModel, Measure
from training.eval.measures.prompts import check_rendering, encode_completion
from training.eval.measures.records import read_pairs
from training.model_io.tokenizers import unknown_token_id
from training.tuning.dataset_formats import Record

EncodedPair = list[tuple[list[int], list[int]]]  # prompt and answer ids of the chosen side, and of the rejected one
_SCORABLE = "fits in the context of {} tokens and has only characters that the tokenizer knows"
_REMEDY = "use a longer context, or other pairs"


class Pairs(Measure):
    """Preference accuracy and margin on the pairs of each file in `pairs`."""

    kind = "pairs"

    def prepare(self) -> None:
        self.pairs: dict[str, list[Record]] = {}
        for name, file in self.config.pairs.items():
            pairs = read_pairs(file, f"pairs.{name}")
            measured = min(len(pairs), self.config.limits.pairs)
            self.pairs[name] = random.Random(self.config.seed).sample(pairs, measured)
            print(f"evaluate: pairs.{name}: {len(pairs):,} pairs, {measured:,} measured")

    def check(self, candidate: Candidate) -> None:
        for name, pairs in self.pairs.items():
            check_pairs(pairs, name, candidate.tokenizer, candidate.context, candidate.folder, candidate.key)

    def inputs(self) -> dict[str, str]:
        return {f"pairs.{name}": file for name, file in self.config.pairs.items()}

    def conditions(self) -> dict[str, str]:
        return {"pairs": "total log-probability of the answer, its end included; margins in nats"}

    def run(self, model: LoadedModel) -> MeasureResult:
        result = MeasureResult()
        for name, pairs in self.pairs.items():
            result.add(
                measure_pairs(model.model, model.tokenizer, pairs, name, model.context, model.batch_size, model.bf16)
            )
        return result


def measure_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: list[Record],
    name: str,
    context: int,
    batch_size: int = 8,
    bf16: bool = False,
) -> MeasureResult:
    """Preference accuracy and mean margin; guessing gives an accuracy of one half.

    Totals of log-probabilities are compared, not means, as in DPO. The pairs of `scratch prepare` have answers of
    similar length. In others a shorter answer is more likely for that alone, which cancels when two models are
    compared on the same pairs.

    Args:
        pairs: `prompt`, `chosen` and `rejected` each, all text or all messages.
        name: of the pairs in the recipe.
        context: maximum tokens of a prompt with its answer; a pair that exceeds it, or has unknown characters in an
            answer, is left out and counted.

    Raises:
        UserError: no pair can be measured.
    """
    encoded, unknown = [_encode(tokenizer, pair) for pair in pairs], unknown_token_id(tokenizer)
    fitting = [index for index, pair in enumerate(encoded) if _fits(pair, context, unknown)]
    if not fitting:
        raise UserError(f"'pairs.{name}': no pair {_SCORABLE.format(context)}; {_REMEDY}")
    sides = [side for index in fitting for side in encoded[index]]
    totals = score_continuations(model, sides, batch_size * context, bf16).nats
    chosen, rejected = totals.view(-1, 2).unbind(dim=1)  # (pairs,) each
    margins = (chosen - rejected).tolist()
    wins = [float(margin > 0) for margin in margins]
    left_out = len(pairs) - len(fitting)
    outcomes = []
    for index, win, margin in zip(fitting, wins, margins):
        item = identify([pairs[index][column] for column in ("prompt", "chosen", "rejected")])
        outcomes.append(ItemOutcome(Pairs.kind, name, item, {ACCURACY: win, MARGIN: margin}))
    figures = {
        MetricKey(Pairs.kind, name, ACCURACY): figure_of(wins, chance=0.5, left_out=left_out),
        MetricKey(Pairs.kind, name, MARGIN): figure_of(margins, "nats", left_out=left_out),
    }
    return MeasureResult(figures, outcomes)


def check_pairs(
    pairs: list[Record], name: str, tokenizer: PreTrainedTokenizerBase, context: int, model: str, key: str
) -> None:
    """Reject, before any work, a model that cannot be measured on the pairs of a file.

    Args:
        name: of the pairs in the recipe.
        model, key: the model's folder, and the key of the recipe that names it.

    Raises:
        UserError: unsuitable chat template, or no pair can be measured.
    """
    check_rendering(tokenizer, [[pair["prompt"], pair["chosen"], pair["rejected"]] for pair in pairs], model, key)
    unknown = unknown_token_id(tokenizer)
    if not any(_fits(_encode(tokenizer, pair), context, unknown) for pair in pairs):
        raise UserError(f"'pairs.{name}': for {model} ({key}) no pair {_SCORABLE.format(context)}; {_REMEDY}")


def _encode(tokenizer: PreTrainedTokenizerBase, pair: Record) -> EncodedPair:
    return [encode_completion(tokenizer, pair["prompt"], pair[side]) for side in ("chosen", "rejected")]


def _fits(pair: EncodedPair, context: int, unknown: int | None) -> bool:
    """Whether a pair can be measured: both answers fit, without characters that the tokenizer does not know."""
    return all(len(prompt) + len(answer) <= context and unknown not in answer for prompt, answer in pair)
