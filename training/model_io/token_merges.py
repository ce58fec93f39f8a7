"""Text cut by a tokenizer: its words, the merges inside each word by rank, and the tokens that are left."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from training.common.errors import UserError, one_line
from training.model_io.token_bytes import BYTE_TOKEN, BYTES
from training.model_io.tokenizers import UNDECODED, open_tokenizer

MOST_CHARACTERS = 2000  # of a text whose merges are listed
_WIDTH, _WIDEST_CELL = 110, 28  # characters of a line, and of a word or a merge in it
_VISIBLE = str.maketrans({" ": "·", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


@dataclass(frozen=True)
class Merge:
    """Two adjacent pieces of a word that become one.

    Attributes:
        rank: merges that were learned before this one; the lowest rank in a word is merged first.
        place: number of the left piece in the word, before the merge.
    """

    rank: int
    place: int
    left: str
    right: str
    merged: str


@dataclass(frozen=True)
class Word:
    """A part of a text that no merge crosses. Everything is written readably, see `readable`.

    Attributes:
        pieces: what the word consists of before the first merge: characters, or bytes. If the tokenizer does not merge
            here (an added token, another model than BPE), its tokens.
        merges: in the order in which they are made.
        tokens: what is left in the end.
        ids: of the tokens.
    """

    text: str
    pieces: list[str]
    merges: list[Merge]
    tokens: list[str]
    ids: list[int]

    def states(self) -> list[list[str]]:
        """The pieces before the first merge, and after each."""
        states = [self.pieces]
        for merge in self.merges:
            before = states[-1]
            states.append([*before[: merge.place], merge.merged, *before[merge.place + 2 :]])
        return states


@dataclass(frozen=True)
class CutText:
    """A text as a tokenizer cuts it.

    Attributes:
        model: type of the tokenizer's model; only BPE has merges.
    """

    text: str
    model: str
    words: list[Word]


def open_backend(name: str | Path, key: str) -> Tokenizer:
    """The Rust tokenizer of a folder, a name on the Hub, or a `tokenizer.json` anywhere.

    Raises:
        UserError: there is none, or it is damaged.
    """
    file = Path(name)
    if not file.is_file():
        return open_tokenizer(name, key).backend_tokenizer
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises no narrower class
        reason = one_line(error)
        raise UserError(f"'{key}': {file} is not a tokenizer.json ({reason}); name one, or its folder") from None


def cut(backend: Tokenizer, text: str) -> CutText:
    """The words of a text and their merges.

    The library gives words and tokens; the merges between them are replayed here. A word whose replay does not end in
    the library's tokens is shown without merges: some models merge nothing, or take known words whole.

    Raises:
        UserError: the text is empty or longer than `MOST_CHARACTERS`, or has a character that the tokenizer rejects.
    """
    if not text:
        raise UserError("'show': the text is empty; give some, as in --show 'def f(x):'")
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"'show': {len(text):,} characters are too many to list; give at most {MOST_CHARACTERS:,}")
    try:
        encoding = backend.encode(text, add_special_tokens=False)
    except Exception as error:  # as above
        reason = one_line(error)
        raise UserError(f"'show': the tokenizer rejects the text ({reason}); leave that character out") from None
    replay = _Replay(json.loads(backend.to_str()))
    added = backend.get_added_tokens_decoder()
    tokens = list(zip(encoding.word_ids, encoding.tokens, encoding.ids, strict=True))
    words = []
    for _, group in groupby(tokens, key=lambda token: token[0]):
        _, written, ids = map(list, zip(*group, strict=True))
        if len(ids) == 1 and ids[0] in added:
            shown = readable(written[0], byte_level=False)
            words.append(Word(shown, [shown], [], [shown], ids))
        else:
            words.append(replay.word(written, ids))
    return CutText(text, replay.kind, words)


def readable(token: str, byte_level: bool) -> str:
    """A token of a vocabulary as text: a space as `·`, line breaks and tabs as in Python, bytes that are not a whole
    character as `\\xe2`."""
    if byte := BYTE_TOKEN.fullmatch(token):
        return f"\\x{byte[1].lower()}"
    if byte_level and set(token) <= BYTES.keys():
        token = bytes(BYTES[character] for character in token).decode("utf-8", errors="backslashreplace")
    return token.replace("▁", " ").translate(_VISIBLE)


def token_text(token: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of a token; of one that is not whole characters, its bytes as `\\xe2`."""
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    return readable(tokenizer.convert_ids_to_tokens(token), byte_level=True) if UNDECODED in text else text


def describe(found: CutText) -> str:
    """A table for the terminal: each word, its pieces, and its pieces after each merge; then tokens with their ids.

    A word that occurs again is not repeated.
    """
    rows, seen = [("word", "rank", "merge", "pieces", 0)], set()
    for word in found.words:
        again = word.text in seen and bool(word.merges)
        rows.append((word.text, "", "", "as above" if again else word.pieces, 0))
        if not again:
            steps = zip(word.merges, word.states()[1:], strict=True)
            rows += [("", f"{one.rank:,}", f"{one.left} + {one.right}", state, one.place) for one, state in steps]
        seen.add(word.text)
    widths = [min(_WIDEST_CELL, max(len(row[column]) for row in rows)) for column in range(3)]
    room = _WIDTH - sum(widths) - 6
    lines = []
    for word, rank, merge, pieces, place in rows:
        cells = (_shorten(word, widths[0]).ljust(widths[0]), rank.rjust(widths[1]), _shorten(merge, widths[2]))
        state = pieces if isinstance(pieces, str) else _around(pieces, place, room)
        lines.append(f"{cells[0]}  {cells[1]}  {cells[2].ljust(widths[2])}  {state}".rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    tokens = [f"{token} {index}" for word in found.words for token, index in zip(word.tokens, word.ids, strict=True)]
    size = len(found.text.encode())
    ratio = f"{size / len(tokens):.2f} bytes per token"
    lines += ["", *textwrap.wrap(" | ".join(tokens), _WIDTH, break_long_words=False, break_on_hyphens=False)]
    return "\n".join([*lines, "", f"{size} bytes, {len(found.words)} words, {len(tokens)} tokens: {ratio}"])


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _around(pieces: list[str], place: int, width: int) -> str:
    """Pieces with spaces between them; those far from a place are left out if the line would be wider."""
    line, at = " ".join(pieces), len(" ".join(pieces[:place]))
    if len(line) <= width:
        return line
    start = min(max(0, at - width // 2), len(line) - width)
    cut_line = line[start : start + width]
    before, after = "…" if start else "", "…" if start + width < len(line) else ""
    return before + cut_line[len(before) : width - len(after)] + after


class _Replay:
    """The merges of a tokenizer, made one at a time.

    Args:
        content: of its `tokenizer.json`.
    """

    def __init__(self, content: dict[str, Any]):
        model = content["model"]
        self.kind: str = model["type"]
        self.ranks = {(left, right): rank for rank, (left, right) in enumerate(model.get("merges") or ())}
        self.prefix = model.get("continuing_subword_prefix") or ""
        self.suffix = model.get("end_of_word_suffix") or ""
        self.unknown = model.get("unk_token")
        parts = [content.get(part) or {} for part in ("pre_tokenizer", "decoder")]
        parts += [step for part in parts for step in part.get("pretokenizers") or part.get("decoders") or ()]
        self.byte_level = any(part.get("type") == "ByteLevel" for part in parts)

    def word(self, tokens: list[str], ids: list[int]) -> Word:
        """A word from its tokens."""
        symbols, merges = self.symbols(tokens), []
        pieces, state = symbols, symbols
        while found := self.lowest(state):
            rank, place = found
            left, right = state[place : place + 2]
            merged = left + right.removeprefix(self.prefix)
            merges.append(Merge(rank, place, *map(self.readable, (left, right, merged))))
            state = [*state[:place], merged, *state[place + 2 :]]
        if state != tokens:
            pieces, merges = tokens, []
        shown = [self.readable(piece) for piece in pieces]
        whole = "".join(symbols)  # in which the bytes of a character are together again
        text = self.readable(whole) if self.byte_level and set(whole) <= BYTES.keys() else "".join(shown)
        return Word(text, shown, merges, [self.readable(token) for token in tokens], ids)

    def symbols(self, tokens: list[str]) -> list[str]:
        """The characters of the vocabulary that the tokens of a word are made of, with which merging begins."""
        symbols: list[str] = []
        for place, token in enumerate(tokens):
            last = self.suffix if place == len(tokens) - 1 and token.endswith(self.suffix) else ""
            characters = token.removeprefix(self.prefix if place else "").removesuffix(last)
            if token == self.unknown or not characters or BYTE_TOKEN.fullmatch(token):
                symbols.append(token)
                continue
            symbols += [self.prefix * bool(symbols or number) + one for number, one in enumerate(characters)]
            symbols[-1] += last
        return symbols

    def lowest(self, symbols: Sequence[str]) -> tuple[int, int] | None:
        """Rank and place of the pair that is merged next; None if no pair has a rank."""
        ranked = ((self.ranks[pair], place) for place, pair in enumerate(pairwise(symbols)) if pair in self.ranks)
        return min(ranked, default=None)

    def readable(self, token: str) -> str:
        """As `readable`, without the marks of a word's middle and end."""
        if self.prefix:
            token = token.removeprefix(self.prefix)
        return readable(token.removesuffix(self.suffix) if self.suffix else token, self.byte_level)
