"""Held-out split of labelled texts, drawn by label from the training texts where no file is given."""

import hashlib
from collections import defaultdict
from typing import NamedTuple


class Split(NamedTuple):
    """Places of texts by split, in the order of the texts."""

    kept: list[int]
    held_out: list[int]


def hold_out(texts: list[str], labels: list[str], share: float, seed: int) -> Split:
    """Draw a share of the texts, with labels in proportion and a text of each rare label where there is room.

    Texts that are equal up to case and whitespace are on one side. Those that have several labels stay in training, as
    does at least one text of each label. The draw depends on the seed and the texts, not on their order.

    Args:
        share: of the texts, between 0 and 1.

    Returns:
        Nothing held out if no label has two different texts.
    """
    places, found = defaultdict(list), defaultdict(set)
    for place, (text, label) in enumerate(zip(texts, labels, strict=True)):
        key = " ".join(text.casefold().split())
        places[key].append(place)
        found[key].add(label)
    of_label = defaultdict(list)
    for key, names in found.items():
        if len(names) == 1:
            of_label[min(names)].append((hashlib.sha256(f"{seed} {key}".encode(errors="surrogatepass")).digest(), key))
    ordered = []  # each label's texts at even distances, the first of a rare label before the share is full
    for drawn in of_label.values():
        drawn.sort()
        distances = [(rank + 0.5) / len(drawn) for rank in range(len(drawn) - 1)]
        distances[:1] = [min(first, share / 2) for first in distances[:1]]
        ordered += [(distance, *draw) for distance, draw in zip(distances, drawn)]
    left, held_out = max(1, round(share * len(texts))), set()
    for *_, key in sorted(ordered):
        if len(places[key]) <= left or not held_out:
            held_out.update(places[key])
            left -= len(places[key])
    kept = [place for place in range(len(texts)) if place not in held_out]
    return Split(kept, sorted(held_out))
