"""Log-probabilities of continuations given their contexts, where each shared beginning is computed once.

In exact arithmetic every score equals that of the sequence alone. tests/eval/measures/test_continuations.py holds them
within 1e-4 nats in fp32, for several architectures.

The questions of a subject share few-shot examples, the answers to a question share the question, and the sentences of a
minimal pair share their first words. A `PrefixTree` holds such sequences in one row of a batch, each distinct prefix as
one token. Its position is its depth; it attends to itself and to the tokens before it in its own sequences.

Tree attention: Miao et al., SpecInfer, https://arxiv.org/abs/2305.09781
"""

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from training.common.progress import progress_bar
from training.eval.measures.batching import by_tokens, pad

# More tokens in a forward pass gain nothing on a CPU: their activations leave its caches.
TOKENS_ON_CPU = 1536
LARGEST_TREE = 1536  # tokens of a row of several sequences

Request = tuple[list[int], list[int]]  # tokens that a model reads, and the targets of the last of them


@dataclass
class PrefixTree:
    """One row.

    Attributes:
        ids, depths: (tokens,) each.
        paths: the places of each sequence in the row; a sequence that continues the one before replaces it.
        scored: of each request, its number, the places whose logits predict its targets, and the targets.
    """

    ids: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    paths: list[list[int]] = field(default_factory=list)
    scored: list[tuple[int, list[int], list[int]]] = field(default_factory=list)

    def shared(self, sequence: list[int]) -> int:
        """Number of first tokens that a sequence has in common with the one added last."""
        count = 0
        for place, token in zip(self.paths[-1] if self.paths else [], sequence):
            if self.ids[place] != token:
                break
            count += 1
        return count

    def add(self, number: int, sequence: list[int], targets: list[int]) -> None:
        """Add a request. Sequences that share a prefix must be added one after another."""
        shared, last = self.shared(sequence), self.paths[-1] if self.paths else []
        path = last[:shared] + list(range(len(self.ids), len(self.ids) + len(sequence) - shared))
        self.ids += sequence[shared:]
        self.depths += range(shared, len(sequence))
        if shared == len(last):
            self.paths[-1:] = [path]
        else:
            self.paths.append(path)
        self.scored.append((number, path[len(path) - len(targets) :], targets))

    def visible(self, length: int) -> torch.Tensor:
        """The places that each attends to, (length, length) bool; places behind the row, padding, see themselves."""
        visible = torch.eye(length, dtype=torch.bool)
        for path in self.paths:
            places = torch.tensor(path)
            visible[places[:, None], places] |= torch.ones(len(path), len(path), dtype=torch.bool).tril()
        return visible


def plant(requests: list[Request], hidden: int) -> Iterator[PrefixTree]:
    """Rows that hold all requests once.

    In a transformer, the matrix products of a token cost as much as its attention to about 6 * `hidden` others, so a
    sequence joins a row if the tokens that this saves outweigh the attention between strangers. Attention with a mask
    is slower by a few times, hence `hidden` without the 6.

    Args:
        hidden: width of the network; with 0, each row is one sequence.
    """
    tree = PrefixTree()
    for number in sorted(range(len(requests)), key=lambda number: requests[number][0]):
        sequence, targets = requests[number]
        shared, size = tree.shared(sequence), len(tree.ids)
        new = len(sequence) - shared
        repeated = tree.scored and new == 0 and shared == len(tree.paths[-1])
        fits = size + new <= max(LARGEST_TREE, 2 * len(sequence)) and new * size < shared * hidden
        if tree.scored and not (repeated or fits):
            yield tree
            tree = PrefixTree()
        tree.add(number, sequence, targets)
    if tree.scored:
        yield tree


class Scores(NamedTuple):
    """Total log-probability of each continuation in nats, (pairs,) float64, and whether greedy decoding gives it."""

    nats: torch.Tensor
    greedy: torch.Tensor


def score_continuations(
    model: PreTrainedModel, pairs: list[tuple[list[int], list[int]]], tokens: int, bf16: bool = False
) -> Scores:
    """Score each continuation under a causal language model.

    Args:
        pairs: token ids of a context, at least one, and of its continuation.
        tokens: maximum tokens of a forward pass, padding included; on a CPU at most `TOKENS_ON_CPU`. Longer sequences
            are read alone.
        bf16: run forward passes under bfloat16 autocast; log-probabilities are computed in float32 in any case.
    """
    requests = [([*context, *continuation][:-1], continuation) for context, continuation in pairs]
    budget = min(tokens, TOKENS_ON_CPU) if model.device.type == "cpu" else tokens
    rows = list(plant(requests, model.config.get_text_config().hidden_size))
    if any(len(row.paths) > 1 for row in rows) and not reads_trees(model, bf16):
        rows = list(plant(requests, hidden=0))
    nats = torch.zeros(len(pairs), dtype=torch.float64)
    greedy = torch.ones(len(pairs), dtype=torch.bool)
    with progress_bar(total=len(pairs), desc="likelihoods", unit="answer", leave=False) as bar:
        for batch in by_tokens([len(row.ids) for row in rows], budget):
            chosen = [rows[index] for index in batch]
            _score_rows(model, chosen, bf16, nats, greedy)
            bar.update(sum(len(row.scored) for row in chosen))
    return Scores(nats, greedy)


def _score_rows(
    model: PreTrainedModel, rows: list[PrefixTree], bf16: bool, nats: torch.Tensor, greedy: torch.Tensor
) -> None:
    """Enter the scores of all requests in a batch of rows."""
    kept = [sorted({place for _, places, _ in row.scored for place in places}) for row in rows]
    slots = {cell: slot for slot, cell in enumerate((index, place) for index, row in enumerate(kept) for place in row)}
    numbers, chosen, targets = [], [], []
    for index, row in enumerate(rows):
        for number, places, continuation in row.scored:
            numbers += [number] * len(places)
            chosen += [slots[index, place] for place in places]
            targets += continuation
    if not numbers:
        return
    logits = _logits(model, rows, kept, bf16).float()  # (slots, vocab)
    slot, target = torch.tensor(chosen).to(logits.device), torch.tensor(targets).to(logits.device)
    scores = logits[slot, target] - logits.logsumexp(dim=-1)[slot]
    missed = logits.argmax(dim=-1)[slot] != target
    scored = torch.tensor(numbers)
    nats.index_add_(0, scored, scores.cpu().double())
    greedy[scored[missed.cpu()]] = False


@torch.inference_mode()
def _logits(model: PreTrainedModel, rows: list[PrefixTree], kept: list[list[int]], bf16: bool) -> torch.Tensor:
    """Logits at the kept places of each row, one row after another, (all kept, vocab).

    Padding is on the right, where no token sees it.
    """
    ids, _ = pad([row.ids for row in rows], padding=0)
    inputs = {"input_ids": ids}
    if any(len(row.paths) > 1 for row in rows):
        visible = torch.stack([row.visible(ids.shape[1]) for row in rows])[:, None]  # (rows, 1, tokens, tokens)
        hidden = torch.full((), torch.finfo(model.dtype).min, dtype=model.dtype)
        inputs["attention_mask"] = torch.where(visible, torch.zeros_like(hidden), hidden)
        inputs["position_ids"], _ = pad([row.depths for row in rows], padding=0)
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    cells = torch.tensor([index * ids.shape[1] + place for index, row in enumerate(kept) for place in row])
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16), _selected(model, ids.shape, cells):
        logits = model(**inputs, use_cache=False).logits.flatten(0, 1)
    return logits if len(logits) == len(cells) else logits[cells.to(logits.device)]


@contextlib.contextmanager
def _selected(model: PreTrainedModel, shape: torch.Size, cells: torch.Tensor) -> Iterator[None]:
    """Context in which the output matrix is applied only to some tokens of a batch of that shape.

    `logits_to_keep` takes the same places of all rows. A model that does not call its output matrix as a module
    computes all logits.

    Args:
        cells: numbers of the tokens in the flattened batch; those of one row are followed by those of the next.
    """

    def select(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if not arguments or arguments[0].shape[:-1] != shape:
            return None
        hidden, *others = arguments
        return hidden.flatten(0, 1)[cells.to(hidden.device)][None], *others

    head = model.get_output_embeddings()
    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


def reads_trees(model: PreTrainedModel, bf16: bool = False) -> bool:
    """Whether a model can read a `PrefixTree`: full attention by a mask of any shape, and positions as given.

    Many models ignore one or the other without an error, so the last test is a tree of two sequences.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"]
    if set(kinds) != {"full_attention"} or config._attn_implementation not in ("sdpa", "eager"):
        return False
    if not {"position_ids", "attention_mask"} <= inspect.signature(model.forward).parameters.keys():
        return False
    tree, alone = PrefixTree(), [PrefixTree(), PrefixTree()]
    for number, sequence in enumerate(([0, 1, 2], [0, 3, 4])):
        tree.add(number, sequence, [0])
        alone[number].add(number, sequence, [0])
    together = _logits(model, [tree], [list(range(5))], bf16)[torch.tensor(tree.paths)].float()  # (2, 3, vocab)
    apart = _logits(model, alone, [[0, 1, 2]] * 2, bf16).float().view_as(together)
    tolerance = 1e-3 if model.dtype == torch.float32 and not bf16 else 5e-2
    return bool((together - apart).abs().max() <= tolerance * (1 + apart.abs().max()))
