"""Attention of one head on one text, every intermediate result kept: what the explanation of Q, K and V shows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.common.errors import UserError
from training.insight.attention import Attention, attention_modules, seen_attention
from training.insight.copying import output_weight
from training.insight.heads import Head
from training.insight.record import Record, probability
from training.model_io.token_merges import token_text
from training.model_io.tokenizers import naming_unknown

MOST_TOKENS = 24  # that a page has room for
PIECE = 12  # tokens of a text that is chosen here
_STRIKING = 0.3  # attention
_TOLERANCE = 1e-3  # between the probabilities of the model and the softmax of the scores here


class NotPlain(UserError):
    """The attention of an architecture has steps that the explanation does not have, or an unknown output matrix."""


@dataclass(frozen=True)
class Walkthrough:
    """The steps from token ids to what a head adds to the residual stream, all float64.

    Attributes:
        model: its name.
        head: layer and head.
        sharing: number of heads that share the keys and values.
        heads: of the layer.
        turned: what the model does to queries and keys after the projections, in words, such as `RoPE`.
        tokens: their texts, (seq,).
        token_ids: (seq,).
        embedding: (seq, hidden).
        stream: (seq, hidden) residual stream before the layer.
        normed: (seq, hidden) the vectors that attention reads.
        query, key, value: (seq, head_dim) as attention uses them.
        scale: factor of the dot products.
        products: (seq, seq) dot products, query by key.
        weights: (seq, seq) attention.
        mixed: (seq, head_dim) output of the head before the output projection.
        added: (seq, hidden) what the head adds to the residual stream.
    """

    model: str
    head: Head
    sharing: int
    heads: int
    turned: list[str]
    tokens: list[str]
    token_ids: list[int]
    embedding: np.ndarray
    stream: np.ndarray
    normed: np.ndarray
    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    scale: float
    products: np.ndarray
    weights: np.ndarray
    mixed: np.ndarray
    added: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """Scaled dot products, (seq, seq), before the mask."""
        return self.products * self.scale

    @property
    def seen(self) -> np.ndarray:
        """Whether a query may attend to a key, (seq, seq)."""
        return self.weights > 0

    @property
    def row(self) -> int:
        """The query to follow: the last token."""
        return len(self.tokens) - 1

    @property
    def column(self) -> int:
        """The key to follow: the one to which that query attends most."""
        return int(self.weights[self.row].argmax())


@torch.no_grad()
def walk_through(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, token_ids: list[int], head: Head, name: str
) -> Walkthrough:
    """Run a model on a text and keep the steps of one head.

    Args:
        token_ids: (seq,) at most `MOST_TOKENS`.
        name: of the model.

    Raises:
        NotPlain: the attention of this architecture is not the plain softmax of Q K^T, or its output matrix is not
            found.
    """
    layer, place = head
    seen: list[Attention] = []
    read: dict[Any, torch.Tensor] = {}

    def note_input(module, arguments, options):
        read[module] = arguments[0] if arguments else options["hidden_states"]

    module = attention_modules(model)[layer]
    hook = module.register_forward_pre_hook(note_input, with_kwargs=True)
    try:
        ids = torch.tensor([token_ids], device=model.device)
        with seen_attention(model, seen.append):
            output = model(ids, use_cache=False, output_hidden_states=True)
    finally:
        hook.remove()
    attention, weight = seen[layer], output_weight(module)
    sharing = attention.query.shape[1] // attention.key.shape[1]
    query, key, value = (
        _array(states[0, place // (1 if states is attention.query else sharing)])
        for states in (attention.query, attention.key, attention.value)
    )
    weights, products = _array(attention.probabilities[0, place]), query @ key.T
    if weight is None or weight.shape[-1] != attention.query.shape[1] * value.shape[-1]:
        raise NotPlain(f"'model': the output matrix of the attention of {type(model).__name__} is not found")
    if np.abs(_softmax(products * attention.scale, weights > 0) - weights).max() > _TOLERANCE:
        raise NotPlain(f"'model': the attention of {type(model).__name__} is not the plain softmax of Q K^T")
    mixed = weights @ value
    columns = slice(place * value.shape[-1], (place + 1) * value.shape[-1])
    return Walkthrough(
        model=name,
        head=head,
        sharing=sharing,
        heads=attention.query.shape[1],
        turned=_turned(model, module),
        tokens=[token_text(token, tokenizer) for token in token_ids],
        token_ids=token_ids,
        embedding=_array(model.get_input_embeddings()(ids)[0]),
        stream=_array(output.hidden_states[layer][0]),
        normed=_array(read[module][0]),
        query=query,
        key=key,
        value=value,
        scale=attention.scale,
        products=products,
        weights=weights,
        mixed=mixed,
        added=mixed @ _array(weight[:, columns]).T,
    )


def encode_text(text: str, tokenizer: PreTrainedTokenizerBase, context: int) -> list[int]:
    """The token ids of a text to explain.

    Raises:
        UserError: it is too short or too long, or the tokenizer does not know a character of it.
    """
    with naming_unknown(tokenizer, text):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    most = min(context, MOST_TOKENS)
    if not 2 <= len(ids) <= most:
        why = f"the context of the model has {context}" if context < MOST_TOKENS else f"a page has room for {most}"
        raise UserError(f"'text': {text!r:.60} has {len(ids)} tokens, and {why}; give a text of 2 to {most} tokens")
    return ids


def striking_text(record: Record, head: Head) -> list[int] | None:
    """The token ids of a piece of held-out text at whose end a head attends most to one earlier token.

    That token is neither the first, often a sink, nor the one just before, unless the head attends to no other.

    Returns:
        At most `PIECE` ids; None without held-out text.
    """
    maps = record.snapshot(record.steps[-1].step).attention
    for nearest in (2, 1):  # tokens back
        found: list[tuple[float, list[int]]] = []
        for probe, attention in zip(record.probes, maps, strict=True):
            if probe.kind == "held_out":
                for end in range(min(PIECE, len(probe.token_ids)), len(probe.token_ids) + 1):
                    first = max(0, end - PIECE)
                    keys = probability(attention[head][end - 1, first + 1 : end - nearest])
                    found.append((float(keys.max(initial=0)), probe.token_ids[first:end]))
        best = max(found, key=lambda piece: piece[0], default=(0.0, None))
        if best[0] >= _STRIKING:
            break
    return best[1]


def _turned(model: PreTrainedModel, module: torch.nn.Module) -> list[str]:
    """The changes to queries and keys between projection and dot product, by the names in common models."""
    found = ["QK-norm"] if hasattr(module, "q_norm") else []
    rotates = any("rotary" in name for name, _ in model.named_modules())
    return [*found, "RoPE"] if rotates else found


def _softmax(scores: np.ndarray, seen: np.ndarray) -> np.ndarray:
    scores = np.where(seen, scores, -np.inf)
    exponentials = np.exp(scores - scores.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.cpu().double().numpy()
