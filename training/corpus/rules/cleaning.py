"""Cleaning of a text before the rules: encoding, invisible characters, markup, boilerplate."""

import html
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from training.common.errors import UserError
from training.common.packages import how_to_install
from training.stages.recipe import option

# UTF-8 that was read as Windows-1252: a character for a lead byte, then as many as it announces for continuation
# bytes. Accented prose hardly ever has this; ftfy, which is slow, decides on the lines that do.
_CONTINUATION = "[\x80-\xbf" + bytes(range(0x80, 0xA0)).decode("cp1252", errors="ignore") + "]"
_MOJIBAKE = re.compile(f"[Â-ô]{_CONTINUATION}(?:(?<=[Â-ß].)|{_CONTINUATION})")

_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Control characters, soft hyphens, zero-width spaces and marks, bidirectional overrides (which can make code read as
# what it is not, CVE-2021-42574), object replacements. Zero-width joiners stay: Persian and emoji need them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
    "\ufff9-\ufffc\ufffe\uffff]"
)
_INVISIBLE_ASCII = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f]")
_SPACES = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f]")
_TRAILING = re.compile(r"[ \t]++\n")
_BLANK_LINES = re.compile(r"\n{4,}")

_TAG_NAMES = (
    "a|abbr|article|aside|b|big|blockquote|body|br|button|center|code|dd|del|div|dl|dt|em|figcaption|figure|font|footer|"
    "form|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|label|li|link|main|meta|nav|noscript|ol|option|p|pre|section|"
    "select|small|span|strike|strong|sub|sup|svg|table|tbody|td|tfoot|th|thead|title|tr|tt|u|ul|video"
)
_TAG = re.compile(rf"(?i)</?(?:{_TAG_NAMES})(?:\s[^<>]{{0,1000}})?/?>")
# Elements whose content is not text, by the patterns of their two ends.
_ELEMENTS = (
    ("<!--", re.compile("<!--"), re.compile("-->")),
    ("<s", re.compile(r"(?i)<script\b[^<>]{0,1000}>"), re.compile(r"(?i)</script\s{0,10}>")),
    ("<s", re.compile(r"(?i)<style\b[^<>]{0,1000}>"), re.compile(r"(?i)</style\s{0,10}>")),
    ("<ref", re.compile(r"<ref\b[^<>/]{0,1000}>"), re.compile("</ref>")),
)
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|[lr][sd]quo|[mn]dash|hellip|#[0-9]{2,7}|#x[0-9A-Fa-f]{2,6});")
_BB_CODE = re.compile(r"(?i)\[/?(b|i|u|s|url|img|quote|code|size|color|list|center|spoiler)(?:=[^\[\]\n]{0,300})?\]")
_BB_END = re.compile(r"\[/([A-Za-z]{1,10})\]")
_WIKI_FILE = re.compile(r"(?i)\[\[(?:file|image|category):[^\[\]\n]{0,500}\]\]")
_WIKI_LINK = re.compile(r"\[\[(?:[^\[\]|\n]{0,300}\|)?([^\[\]|\n]{0,300})\]\]")
_WIKI_TEMPLATE = re.compile(r"\{\{[^{}]{0,2000}\}\}")
_WIKI_NOTE = re.compile(r"\[(?:edit|citation needed|[0-9]{1,3})\]")
_WIKI_EMPHASIS = re.compile("'{3}([^'\n]{1,300})'{3}")

# C4, section 2.2: lines about the page and not about its subject.
_POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
# Lines that are only a counter or an invitation, as in RefinedWeb, appendix G.
_FURNITURE = re.compile(
    r"(?:[0-9][0-9,.]*[km]?\s{1,3})?(?:likes?|shares?|comments?|views?|repl(?:y|ies)|retweets?|read more|sign[- ]in|"
    r"sign[- ]up|log[- ]?in|log[- ]?out|share this|tweet|share on \w{1,20}|back to top|skip to (?:main )?content|"
    r"all rights reserved|next page|previous page|click here|subscribe)[.:…»>\s]{0,5}"
)
_FURNITURE_HINT = re.compile(
    r"\n(?:[0-9][0-9,.]*+[km]? +)?(?:like|share|comment|view|repl|retweet|read more|sign|log|tweet|back to|skip to|"
    r"all r|next p|prev|click h|subsc)"
)

_SENTENCE_ENDS = (".", "!", "?", '"', "”", "’", "'")
_WORDS_IN_LINE = 3

_GUTENBERG_START = re.compile(r"\*{3} ?START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK[^\n]{0,300}\n")
_GUTENBERG_END = re.compile(
    r"\n[^\n*]{0,20}\*{3} ?END OF TH(?:E|IS) PROJECT GUTENBERG EBOOK|\nEnd of (?:the |this )?Project Gutenberg"
)

# The steps in the order in which they run, and the kinds of text for which they are on.
_STEPS = {
    "encoding": ("web", "books"),
    "newlines": ("web", "books", "code"),
    "invisible": ("web", "books", "code"),
    "gutenberg": ("books",),
    "markup": ("web",),
    "boilerplate": ("web",),
    "unfinished_lines": (),
    "spaces": ("web", "books"),
    "unicode": ("web", "books"),
}


@dataclass
class CleaningConfig:
    """Cleaning steps."""

    set: Literal["web", "books", "code", "none"] = option(
        "none", "set of steps for a kind of text; each step can be set below"
    )
    encoding: bool | None = option(None, "repair UTF-8 that was read as another encoding, by ftfy (web, books)")
    newlines: bool | None = option(None, "convert line ends to line feeds (all sets)")
    invisible: bool | None = option(None, "drop control characters, soft hyphens, zero-width spaces (all sets)")
    gutenberg: bool | None = option(None, "drop Project Gutenberg's header and licence (books)")
    markup: bool | None = option(None, "drop leftover HTML tags, BBCode and wiki markup; decode entities (web)")
    boilerplate: bool | None = option(None, "drop lines about cookies, JavaScript or terms of use, and counters (web)")
    unfinished_lines: bool | None = option(
        None, "drop lines of fewer than three words or without sentence-final punctuation, as C4 does (in no set)"
    )
    spaces: bool | None = option(None, "use plain spaces, none at line ends, and at most two blank lines (web, books)")
    unicode: bool | None = option(None, "normalize to Unicode NFC (web, books)")

    def steps(self) -> list[str]:
        """Names of the steps that are on, in their order."""
        given = {name: getattr(self, name) for name in _STEPS}
        return [name for name, kinds in _STEPS.items() if (self.set in kinds if given[name] is None else given[name])]


class Cleaned(NamedTuple):
    """A cleaned text, and how many characters, places or lines each step changed in it."""

    text: str
    counts: dict[str, int]


class Cleaner:
    """Cleans texts by the steps of a configuration: a function of the text alone.

    Raises:
        UserError: `encoding` is on and ftfy is not installed.
    """

    def __init__(self, config: CleaningConfig):
        steps = config.steps()
        self._steps = [(name, _FUNCTIONS[name]) for name in steps]
        if "encoding" in steps:
            _fix_encoding()

    def __call__(self, text: str) -> Cleaned:
        counts = {}
        for name, step in self._steps:
            text, count = step(text)
            if count:
                counts[name] = count
        return Cleaned(text, counts)


def _fix_encoding() -> Callable[[str], str]:
    try:
        from ftfy import fix_encoding
    except ImportError:
        raise UserError(f"'encoding' needs ftfy, which is not installed; {how_to_install('ftfy')}") from None
    return fix_encoding


def _encoding(text: str) -> tuple[str, int]:
    if text.isascii() or not _MOJIBAKE.search(text):
        return text, 0
    fix_encoding, lines, count = _fix_encoding(), text.split("\n"), 0
    for index, line in enumerate(lines):
        if _MOJIBAKE.search(line):
            lines[index] = fix_encoding(line)
            count += lines[index] != line
    return "\n".join(lines), count


def _newlines(text: str) -> tuple[str, int]:
    if "\r" not in text and text.isascii():
        return text, 0
    return _LINE_ENDS.subn("\n", text)


def _invisible(text: str) -> tuple[str, int]:
    return (_INVISIBLE_ASCII if text.isascii() else _INVISIBLE).subn("", text)


def _gutenberg(text: str) -> tuple[str, int]:
    """Drop header and licence, where the text has the markers that Project Gutenberg has used since about 1998."""
    if "roject Gutenberg" not in text and "PROJECT GUTENBERG" not in text:
        return text, 0
    start, count = _GUTENBERG_START.search(text), 0
    if start:
        text, count = text[start.end() :].lstrip("\n"), 1
    end = _GUTENBERG_END.search(text)
    if end:
        text, count = text[: end.start()].rstrip() + "\n", count + 1
    return text, count


def _markup(text: str) -> tuple[str, int]:
    total = 0
    if "<" in text:
        for hint, start, end in _ELEMENTS:
            if hint in text or hint.upper() in text:
                text, count = _drop_between(text, start, end)
                total += count
        text, count = _TAG.subn("", text)
        total += count
    if "[[" in text:
        for expression, new in ((_WIKI_FILE, ""), (_WIKI_LINK, r"\1")):
            text, count = expression.subn(new, text)
            total += count
    for hint, expression, new in (
        ("{{", _WIKI_TEMPLATE, ""),
        ("'''", _WIKI_EMPHASIS, r"\1"),
        ("[", _WIKI_NOTE, ""),
    ):
        if hint in text:
            text, count = expression.subn(new, text)
            total += count
    if "[/" in text:
        text, count = _drop_bb_code(text)
        total += count
    if "&" in text:
        text, count = _ENTITY.subn(lambda match: html.unescape(match[0]), text)
        total += count
    return text, total


def _drop_between(text: str, start: re.Pattern, end: re.Pattern) -> tuple[str, int]:
    """The text without everything from a match of one pattern to the next of the other; unclosed matches stay."""
    kept, position, count = [], 0, 0
    while (opened := start.search(text, position)) and (closed := end.search(text, opened.end())):
        kept.append(text[position : opened.start()])
        position, count = closed.end(), count + 1
    kept.append(text[position:])
    return "".join(kept), count


def _drop_bb_code(text: str) -> tuple[str, int]:
    """Drop BBCode tags that are closed somewhere, so that `a[i]` stays."""
    closed, count = {name.lower() for name in _BB_END.findall(text)}, 0

    def replacement(match: re.Match) -> str:
        nonlocal count
        if match[1].lower() not in closed:
            return match[0]
        count += 1
        return ""

    return _BB_CODE.sub(replacement, text), count


def _boilerplate(text: str) -> tuple[str, int]:
    lowered = text.lower()
    hinted = "javascript" in lowered or any(policy in lowered for policy in _POLICIES)
    if not hinted and not _FURNITURE_HINT.search("\n" + lowered):
        return text, 0
    return _keep_lines(text, lambda line: not _is_boilerplate(line.lower()))


def _is_boilerplate(line: str) -> bool:
    if "javascript" in line or any(policy in line for policy in _POLICIES):
        return True
    return _FURNITURE.fullmatch(line.strip()) is not None


def _unfinished_lines(text: str) -> tuple[str, int]:
    def finished(line: str) -> bool:
        line = line.rstrip()
        if not line:
            return True
        return line.endswith(_SENTENCE_ENDS) and not line.endswith("...") and len(line.split()) >= _WORDS_IN_LINE

    return _keep_lines(text, finished)


def _keep_lines(text: str, keeps: Callable[[str], bool]) -> tuple[str, int]:
    lines = text.split("\n")
    kept = [line for line in lines if keeps(line)]
    return "\n".join(kept), len(lines) - len(kept)


def _spaces(text: str) -> tuple[str, int]:
    total = 0
    if not text.isascii():
        text, total = _SPACES.subn(" ", text)
    if " \n" in text or "\t\n" in text:
        text, count = _TRAILING.subn("\n", text)
        total += count
    if "\n\n\n\n" in text:
        text, count = _BLANK_LINES.subn("\n\n\n", text)
        total += count
    return text, total


def _unicode(text: str) -> tuple[str, int]:
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text, 0
    return unicodedata.normalize("NFC", text), 1


_FUNCTIONS: dict[str, Callable[[str], tuple[str, int]]] = {
    "encoding": _encoding,
    "newlines": _newlines,
    "invisible": _invisible,
    "gutenberg": _gutenberg,
    "markup": _markup,
    "boilerplate": _boilerplate,
    "unfinished_lines": _unfinished_lines,
    "spaces": _spaces,
    "unicode": _unicode,
}
