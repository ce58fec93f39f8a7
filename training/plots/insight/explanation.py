"""The explanation of Q, K and V on a reader's own model and text: its eight steps in words and numbers, as Markdown."""

from dataclasses import dataclass

import numpy as np

from training.common.tables import Row, as_markdown
from training.insight.heads import head_name
from training.insight.walkthrough import Walkthrough
from training.plots.insight.maps import visible

TERMS = 8  # products of a dot product that are shown
KEYS = 6  # keys of a row that are shown


@dataclass(frozen=True)
class Step:
    """A step of the explanation: its title and its sentences."""

    title: str
    text: str


@dataclass(frozen=True)
class Terms:
    """The largest terms of a sum, and the sum of the others.

    Attributes:
        places: of the terms, in the order of size.
        others: their number.
    """

    places: list[int]
    rest: float
    others: int
    total: float


def largest_terms(terms: np.ndarray, count: int) -> Terms:
    """The `count` terms of a sum that are largest without their signs."""
    places = np.argsort(-np.abs(terms), kind="stable")[:count].tolist()
    total = float(terms.sum())
    return Terms(places, total - float(terms[places].sum()), max(0, len(terms) - count), total)


def number(value: float) -> str:
    """A number with two decimals and a true minus sign; a small one with two digits, of at most four decimals."""
    text = f"{value:.2f}" if abs(value) >= 0.095 else f"{round(value, 4) or 0:.2g}"
    return text.replace("-", "−")


def quoted(token: str) -> str:
    """A token in quotation marks, with line ends visible."""
    return "“" + token.replace("\n", "↵").replace("\t", "→") + "”"


def steps(walk: Walkthrough) -> list[Step]:
    """The eight steps."""
    layer, name, row, column = walk.head[0], head_name(walk.head), walk.row, walk.column
    hidden, size, count = walk.normed.shape[1], walk.query.shape[1], len(walk.tokens)
    query, key = quoted(walk.tokens[row]), quoted(walk.tokens[column])
    score, share = walk.scores[row, column], walk.weights[row, column]
    exponentials = np.exp(walk.scores[row] - walk.scores[row][walk.seen[row]].max()) * walk.seen[row]
    first = walk.weights[row] * walk.value[:, 0]
    return [
        Step(
            "Text to tokens",
            f"The tokenizer cuts the text into {count} tokens. Each has an id: its row in the embedding matrix. These "
            f"pages follow the last token, {query} at position {row}, as a query. The key that it attends to most is "
            f"{key} at position {column}{' (itself)' if row == column else ''}.",
        ),
        Step(
            "Tokens to vectors",
            f"The embedding turns each id into {hidden:,} numbers. {_before(layer)} A norm then brings them to a "
            "similar size. In the pictures, a row is a token and a column is a coordinate.",
        ),
        Step(
            "Three projections: query, key and value",
            f"Head {name} multiplies each of these vectors by three matrices of {hidden:,} × {size} numbers, which "
            "training has found. Query and key decide which tokens attend to which: the query of the token that reads, "
            f"the key of the token that is read. The value is what is read.{_turned(walk)}{_shared(walk)}",
        ),
        Step(
            "One dot product",
            f"The score of the key {key} for the query {query}: multiply coordinate by coordinate, and add up all "
            f"{size} products. The factor {walk.scale:.4f} keeps scores at one size in heads of any width: "
            f"{number(walk.products[row, column])} × {walk.scale:.4f} = {number(score)}.",
        ),
        Step(
            "All scores, and the mask",
            f"Q Kᵀ × {walk.scale:.4f} holds the scores of all queries (rows) and keys (columns) at once. A token must "
            "not see those after it, or it could copy what it should predict. Their scores are masked (grey).",
        ),
        Step(
            "Softmax",
            "Each row becomes shares that add up to 1: e to the power of the score, divided by the sum of the row. "
            f"The largest score of the row is subtracted first, which changes nothing and avoids overflow. For {key}: "
            f"{number(exponentials[column])} / {number(exponentials.sum())} = {number(share)}.",
        ),
        Step(
            "Weighted sum of the values",
            f"The output of the head at {query} is the sum of the values, each times its share. Coordinate 0: "
            f"{_sum_of(first, walk.weights[row], walk.value[:, 0])} = {number(walk.mixed[row, 0])}.",
        ),
        Step(
            "Back to the residual stream",
            f"The output matrix turns these {size} numbers into {hidden:,}, which are added to the vector of {query}. "
            f"Coordinate 0: {number(walk.stream[row, 0])} + {_bracketed(walk.added[row, 0])} = "
            f"{number(walk.stream[row, 0] + walk.added[row, 0])}. What is added has length "
            f"{number(np.linalg.norm(walk.added[row]))}, the vector before had "
            f"{number(np.linalg.norm(walk.stream[row]))}.{_others(walk)}",
        ),
    ]


def _before(layer: int) -> str:
    if layer == 0:
        return "Layer 0 is the first: nothing has been added to the embeddings, except positions in some models."
    return f"The layers before layer {layer} have added what they computed."


def _turned(walk: Walkthrough) -> str:
    effects = {
        "QK-norm": "QK-norm gives all queries and keys a similar length",
        "RoPE": "RoPE rotates them by their position",
    }
    return " Then " + ", and ".join(effects[turn] for turn in walk.turned) + "." if walk.turned else ""


def _shared(walk: Walkthrough) -> str:
    return f" {walk.sharing} heads share these keys and values." if walk.sharing > 1 else ""


def _others(walk: Walkthrough) -> str:
    others = walk.heads - 1
    return " The other head of the layer adds its own." if others == 1 else (
        f" The other {others} heads of the layer add their own." if others else ""
    )


def _sum_of(terms: np.ndarray, shares: np.ndarray, values: np.ndarray) -> str:
    """The three largest terms of a weighted sum spelt out, and the rest."""
    largest = largest_terms(terms, 3)
    spelt = [f"{number(shares[place])} × {_bracketed(values[place])}" for place in largest.places]
    return " + ".join([*spelt, *([f"{_bracketed(largest.rest)} (the rest)"] if largest.others else [])])


def _bracketed(value: float) -> str:
    return f"({number(value)})" if value < 0 else number(value)


def as_page(walk: Walkthrough, pictures: list[str]) -> str:
    """The explanation as Markdown, with its numbers in tables.

    Args:
        pictures: names of the images of the pages.
    """
    row, column = walk.row, walk.column
    tables = {
        0: [["position", *map(str, range(len(walk.tokens)))],
            ["token", *(f"`{_visible(token)}`" for token in walk.tokens)],
            ["id", *map(str, walk.token_ids)]],
        1: _first_numbers({"embedding": walk.embedding[row], "before the layer": walk.stream[row],
                           "after the norm": walk.normed[row]}),
        2: _first_numbers({"query": walk.query[row], "key": walk.key[column],
                           "value": walk.value[column]}),
        3: dot_product_table(walk),
        4: _matrix(walk, walk.scores),
        5: _matrix(walk, walk.weights),
        6: _first_numbers({"output of the head": walk.mixed[row]}),
        7: _first_numbers({"added": walk.added[row], "sum": walk.stream[row] + walk.added[row]}),
    }  # fmt: skip
    text = f"# Query, key and value in head {head_name(walk.head)} of {walk.model}\n\n"
    text += f"The text: `{_visible(''.join(walk.tokens))}`\n"
    for place, step in enumerate(steps(walk)):
        text += f"\n## {place + 1}. {step.title}\n\n{step.text}\n\n{as_markdown(tables[place])}"
    shown = f"query {quoted(walk.tokens[row])}, key {quoted(walk.tokens[column])}"
    return text + "".join(f"\n![Page {page}: {shown}]({name})\n" for page, name in enumerate(pictures, start=1))


def dot_product_table(walk: Walkthrough) -> list[Row]:
    """The largest products of the dot product that is followed, coordinate by coordinate; then the others, and all."""
    query, key = walk.query[walk.row], walk.key[walk.column]
    terms = largest_terms(query * key, TERMS)
    others = [f"{terms.others} others"] if terms.others else []
    blank = [""] * (len(others) + 1)
    return [
        ["coordinate", *map(str, terms.places), *others, "sum"],
        ["query", *(number(query[place]) for place in terms.places), *blank],
        ["key", *(number(key[place]) for place in terms.places), *blank],
        ["product", *(number(query[place] * key[place]) for place in terms.places),
         *([number(terms.rest)] if others else []), number(terms.total)],
    ]  # fmt: skip


def softmax_table(walk: Walkthrough) -> list[Row]:
    """The keys with the largest shares of the query that is followed: score, exponential, share; then the others."""
    scores, weights, seen = walk.scores[walk.row], walk.weights[walk.row], walk.seen[walk.row]
    exponentials = np.exp(scores - scores[seen].max()) * seen
    terms = largest_terms(weights, KEYS)
    others = [f"{terms.others} others"] if terms.others else []
    places = terms.places
    hidden = exponentials.sum() - exponentials[places].sum()
    return [
        ["key", *(f"{visible(walk.tokens[place], 7)} ({place})" for place in places), *others, "sum"],
        ["score", *(number(scores[place]) for place in places), *[""] * (len(others) + 1)],
        ["e^(score − largest)", *(number(exponentials[place]) for place in places),
         *([number(hidden)] if others else []), number(exponentials.sum())],
        ["share", *(number(weights[place]) for place in places), *([number(terms.rest)] if others else []), "1.00"],
    ]  # fmt: skip


def _first_numbers(vectors: dict[str, np.ndarray]) -> list[Row]:
    """The first numbers of vectors, a row for each."""
    rows = [[name, *(number(value) for value in vector[:TERMS])] for name, vector in vectors.items()]
    return [["coordinate", *map(str, range(len(rows[0]) - 1))], *rows]


def _matrix(walk: Walkthrough, values: np.ndarray) -> list[Row]:
    """A matrix of queries by keys, masked entries empty."""
    names = [f"`{_visible(token)}`" for token in walk.tokens]
    rows = [
        [name, *(number(value) if seen else "" for value, seen in zip(line, visible))]
        for name, line, visible in zip(names, values, walk.seen)
    ]
    return [["query \\ key", *names], *rows]


def _visible(token: str) -> str:
    """A token inside a table of Markdown."""
    return token.translate({ord("\n"): "↵", ord("\t"): "→", ord("|"): "¦", ord("`"): "ʼ", ord(" "): "·"})
