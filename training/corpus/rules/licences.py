"""The licence rule: licences stated at the head of source files.

Recognized are an SPDX tag and the usual wording of the best-known licences, in the first characters of a file. Not
recognized are the licence of a file that states none (its package or repository may) and one named further down; nor is
it known whether the statement is true. The Stack (Kocetkov et al. 2022, https://arxiv.org/abs/2211.15533) asks the
repository instead; a source that knows its licence should be chosen by it.
"""

import re
from dataclasses import dataclass

from training.corpus.rules.rule import Rejection
from training.corpus.rules.statistics import Statistics

_HEAD = 4_000  # characters
_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n*]{1,200})")

# Those that require no more than attribution. Anything else that an SPDX tag names counts as restrictive.
_PERMISSIVE = re.compile(
    r"apache|mit(-|$)|bsd|isc$|zlib|unlicense|cc0|0bsd|python|psf|bsl-1|boost|wtfpl|x11|ncsa|postgresql|hpnd|blueoak|"
    r"artistic|unicode|ofl|curl|libpng|cc-by-[0-9.]+$"
)
_WORDINGS = (
    ("AGPL", False, re.compile(r"gnu affero general public licen[sc]e|\bagpl")),
    ("LGPL", False, re.compile(r"gnu (lesser|library) general public licen[sc]e|\blgpl")),
    ("GPL", False, re.compile(r"gnu general public licen[sc]e|\bgplv?[23]\b|under the gpl\b")),
    ("MPL", False, re.compile(r"mozilla public licen[sc]e")),
    ("EPL", False, re.compile(r"eclipse public licen[sc]e")),
    ("CC BY-NC", False, re.compile(r"creative commons attribution-noncommercial|cc[ -]by-nc")),
    ("Apache-2.0", True, re.compile(r"apache licen[sc]e|apache software licen[sc]e")),
    ("MIT", True, re.compile(r"\bmit licen[sc]e|\bmit/x11\b|permission is hereby granted, free of charge")),
    ("BSD", True, re.compile(r"\bbsd\b.{0,40}licen[sc]e|redistribution and use in source and binary forms")),
    ("ISC", True, re.compile(r"\bisc licen[sc]e|permission to use, copy, modify, and(/or)? distribute this software")),
    ("PSF", True, re.compile(r"python software foundation licen[sc]e|licensed to psf under a contributor agreement")),
    ("public domain", True, re.compile(r"(in|into|to) the public domain|the unlicense")),
    ("proprietary", False, re.compile(r"\bproprietary\b|\bconfidential\b|unauthori[sz]ed (copying|use|reproduction)")),
)
_MENTION = re.compile(r"licen[sc]e|gpl|public domain|permission|redistribution|propriet|confidential|unauthori")


@dataclass(frozen=True)
class Licence:
    """The licence that the head of a file states.

    Attributes:
        name: the SPDX expression, or the licences whose wording was found.
        permissive: whether attribution is all that one of the alternatives asks for.
    """

    name: str
    permissive: bool


def find_licence(text: str) -> Licence | None:
    """The licence stated in the first 4,000 characters; None if there is none.

    Between several wordings the reader has the choice, as in "MIT or GPL", so one that is permissive is enough.
    """
    head = text[:_HEAD]
    tag = _SPDX.search(head)
    if tag:
        expression = tag[1].strip(" \t\"'-/>#")
        return Licence(expression, _is_permissive(expression))
    head = head.lower()
    if not _MENTION.search(head):
        return None
    head = re.sub(r"[\s*#/;]+", " ", head)  # a licence text runs over line ends and comment signs
    found = [(name, permissive) for name, permissive, wording in _WORDINGS if wording.search(head)]
    if not found:
        return None
    return Licence(" and ".join(name for name, _ in found), any(permissive for _, permissive in found))


def _is_permissive(expression: str) -> bool:
    alternatives = re.split(r"\s+or\s+", expression.lower().replace("(", " ").replace(")", " ").strip())
    return any(
        all(_PERMISSIVE.match(name.strip()) for name in re.split(r"\s+and\s+|\s+with\s+.*", alternative) if name)
        for alternative in alternatives
    )


@dataclass(frozen=True)
class RestrictiveLicence:
    """Drops files whose head states a licence that requires more than attribution; files that state none pass."""

    name: str = "restrictive_licence"

    def __call__(self, text: Statistics) -> Rejection | None:
        licence = find_licence(text.text)
        if licence is None or licence.permissive:
            return None
        return Rejection(self.name, licence.name, "permissive licences pass")
