"""The sequences on which attention is measured and drawn: random blocks repeated, held-out text, the recipe's texts."""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from training.common.errors import UserError
from training.data.loader import Batch, TokenLoader
from training.insight.config import InsightConfig
from training.insight.record import Probe
from training.model_io.token_merges import token_text
from training.model_io.tokenizers import naming_unknown

REPEATED, HELD_OUT = 8, 3  # sequences that are measured
LONGEST = 512  # tokens of a held-out sequence that are measured
DRAWN = 2  # held-out sequences that are drawn


@dataclass(frozen=True)
class Repeated:
    """Random blocks, each given twice, after the token that begins a document.

    Attributes:
        input_ids: (sequences, start + 2 * period).
        start: place of the first token of a block: 1, or 0 without such a token.
        period: tokens of a block.
    """

    input_ids: torch.LongTensor
    start: int
    period: int

    @property
    def predictable(self) -> slice:
        """Places whose next token follows from the repetition: the second block without its last token."""
        return slice(self.start + self.period, self.start + 2 * self.period - 1)


@dataclass(frozen=True)
class Sequences:
    """All sequences of a capture.

    Attributes:
        held_out: from the validation split; None for a model without one.
        texts: (tokens,) ids of each text.
        probes: those that are drawn: the first repeated sequence, the beginnings of the first held-out ones, the texts.
    """

    repeated: Repeated
    held_out: Batch | None
    texts: list[torch.LongTensor]
    probes: list[Probe]

    @property
    def drawn_held_out(self) -> int:
        """The number of held-out sequences that are drawn."""
        return sum(probe.kind == "held_out" for probe in self.probes)


def choose_sequences(
    config: InsightConfig, tokenizer: PreTrainedTokenizerBase, loader: TokenLoader | None, context: int, seed: int
) -> Sequences:
    """The sequences of a run: the same at every step, since they follow from the recipe.

    Args:
        loader: of the validation split; None without one.
        context: tokens that the model can read.

    Raises:
        UserError: a text or a probe is longer than the context, or the tokenizer cannot encode a text.
    """
    if config.tokens > context:
        raise UserError(f"'insight.tokens': {config.tokens} exceeds the context of {context} tokens; lower it")
    repeated = draw_repeated(tokenizer, config.tokens, REPEATED, seed)
    probes = [_probe("repeated", "repeated", repeated.input_ids[0], tokenizer, repeated.period)]
    held_out = None
    if loader:
        held_out = read_held_out(loader)
        rows = held_out.input_ids[:DRAWN, : config.tokens]
        probes += [_probe(f"held out {n}", "held_out", ids, tokenizer) for n, ids in enumerate(rows, start=1)]
    texts = [_encode(text, tokenizer, context) for text in config.texts]
    probes += [_probe(f"text {n}", "text", ids, tokenizer) for n, ids in enumerate(texts, start=1)]
    return Sequences(repeated, held_out, texts, probes)


def draw_repeated(tokenizer: PreTrainedTokenizerBase, tokens: int, count: int, seed: int) -> Repeated:
    """Random sequences of at most `tokens` tokens. A block has no token twice, and no special token."""
    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    prefix = [] if first is None else [first]
    special = {first, *tokenizer.all_special_ids}
    ordinary = np.array([token for token in range(len(tokenizer)) if token not in special])
    period = min((tokens - len(prefix)) // 2, len(ordinary))
    draw = np.random.default_rng((seed, 0x1D5))  # not the numbers of the data order
    blocks = [draw.choice(ordinary, period, replace=False).tolist() for _ in range(count)]
    return Repeated(torch.tensor([prefix + block * 2 for block in blocks]), len(prefix), period)


def read_held_out(loader: TokenLoader) -> Batch:
    """The beginnings of sequences that are spread evenly over the validation split, at least one of each folder."""
    batch = loader.read(np.concatenate(loader.evenly_spaced(HELD_OUT)))
    return Batch(*(None if tensor is None else tensor[:, :LONGEST] for tensor in batch))


def _encode(text: str, tokenizer: PreTrainedTokenizerBase, context: int) -> torch.LongTensor:
    with naming_unknown(tokenizer, text):
        ids = tokenizer(text)["input_ids"]
    if not 2 <= len(ids) <= context:
        raise UserError(
            f"'insight.texts': {text!r:.60} has {len(ids)} tokens; give a text of 2 to {context}, the model's context"
        )
    return torch.tensor(ids)


def _probe(
    name: str, kind: str, ids: torch.LongTensor, tokenizer: PreTrainedTokenizerBase, period: int | None = None
) -> Probe:
    token_ids = ids.tolist()
    return Probe(name, kind, token_ids, [token_text(token, tokenizer) for token in token_ids], period)
