"""Embeddings seen from outside: the nearest neighbours of tokens through training, and the position vectors of a model.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modeling_scratch.modeling_scratch import sinusoidal_embedding
from training.common.errors import UserError
from training.model_io.language_model import open_language_model
from training.model_io.token_merges import readable
from training.model_io.tokenizers import naming_unknown, open_tokenizer
from training.stages.checkpoints import CHECKPOINTS, read_checkpoints

UNDECODED = "\ufffd"  # a token that is not whole characters


@dataclass(frozen=True)
class Neighbours:
    """The tokens closest to a token in the embedding, at one moment of training.

    Attributes:
        step: of the checkpoint; None for a model of which only one moment is known.
        token: readable, as are the others.
        nearest: (token, cosine of the angle between the two embeddings), the closest first.
    """

    step: int | None
    token: str
    nearest: list[tuple[str, float]]


@dataclass(frozen=True)
class Positions:
    """The position vectors of a model.

    Attributes:
        kind: `learned`, `sinusoidal` or `rope`.
        vectors: (positions, size) fp32. Learned or sinusoidal: what is added to the token embedding. RoPE: cosine and
            sine of each rotation, scaled so that the dot product of two vectors is what remains, at their distance, of
            the dot product of a query and an equal key that use all rotations alike.
    """

    kind: str
    vectors: np.ndarray

    @property
    def similarity(self) -> np.ndarray:
        """Dot products of all pairs of positions, (positions, positions), 1 for equal positions on average."""
        products = self.vectors @ self.vectors.T
        return products / np.diag(products).mean()

    @property
    def by_distance(self) -> np.ndarray:
        """Mean similarity at each distance, (positions,)."""
        similarity = self.similarity
        return np.array([similarity.diagonal(-distance).mean() for distance in range(len(similarity))])


def neighbours_through_training(run: str | Path, tokens: list[str], count: int = 6) -> list[Neighbours]:
    """The nearest neighbours of some tokens at every checkpoint that a run has kept, or of a model at one moment.

    Args:
        run: the output of `scratch pretrain`, or any model folder.
        tokens: their texts, with a space in front where they begin a word in the middle of a line.
        count: neighbours of each.

    Returns:
        Sorted by token, in the given order, then by step.

    Raises:
        UserError: no such model, or a text that is not a single token.
    """
    checkpoints = read_checkpoints(Path(run) / CHECKPOINTS)
    moments = {checkpoint.step: checkpoint.folder for checkpoint in checkpoints} or {None: Path(run)}
    tokenizer = open_tokenizer(run if not checkpoints else checkpoints[-1].folder, "neighbours")
    ids = [_single_token(text, tokenizer) for text in tokens]
    names = [_name(token, tokenizer) for token in range(len(tokenizer))]
    found: list[list[Neighbours]] = [[] for _ in ids]
    for step, folder in moments.items():
        model, _ = open_language_model(str(folder), device="cpu", dtype="float32")
        embedding = model.get_input_embeddings().weight.detach()[: len(tokenizer)]
        for place, nearest in enumerate(nearest_tokens(embedding, ids, count)):
            closest = [(names[token], cosine) for token, cosine in nearest]
            found[place].append(Neighbours(step, names[ids[place]], closest))
    return [neighbours for of_token in found for neighbours in of_token]


def nearest_tokens(embedding: torch.Tensor, ids: list[int], count: int) -> list[list[tuple[int, float]]]:
    """For each token, the ids of the closest others and the cosines, the closest first.

    Args:
        embedding: (vocab, hidden).
    """
    unit = torch.nn.functional.normalize(embedding, dim=-1)
    cosines = unit[ids] @ unit.T  # (tokens, vocab)
    cosines[torch.arange(len(ids)), ids] = -2  # below all others
    values, places = cosines.topk(min(count, len(unit) - 1), dim=-1)
    return [list(zip(*pair, strict=True)) for pair in zip(places.tolist(), values.tolist(), strict=True)]


def position_vectors(model: PreTrainedModel, positions: int | None = None) -> Positions:
    """The position vectors of one of our models.

    Args:
        positions: how many, from 0; all of the context by default.

    Raises:
        UserError: the model is of another architecture, or has no positions.
    """
    config = model.config
    kind = getattr(config, "position_type", None)
    context = getattr(config, "max_position_embeddings", 0)
    places = torch.arange(min(positions or context, context))
    if kind == "learned":
        vectors = model.model.embed_positions.weight[places]
    elif kind == "sinusoidal":
        vectors = sinusoidal_embedding(places[None], config.hidden_size)[0]
    elif kind == "rope":
        angles = places[:, None].float() * model.model.rotary_emb.inv_freq.float()  # (positions, head_dim / 2)
        vectors = torch.cat((angles.cos(), angles.sin()), dim=-1) / angles.shape[1] ** 0.5
    else:
        name = "a model without positions" if kind else type(model).__name__
        raise UserError(f"'positions': {name} has none that can be drawn; give a model with learned ones, or RoPE")
    return Positions(kind, vectors.detach().float().numpy())


def _single_token(text: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of a text that is one token."""
    with naming_unknown(tokenizer, text):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        parts = ", ".join(repr(_name(token, tokenizer)) for token in ids)
        raise UserError(f"'neighbours': {text!r} is {len(ids)} tokens ({parts}); name one, or put a space before it")
    return ids[0]


def _name(token: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """A token, readable, also if it is part of a character."""
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    if UNDECODED in text:
        return readable(tokenizer.convert_ids_to_tokens(token), byte_level=True)
    return readable(text, byte_level=False)
