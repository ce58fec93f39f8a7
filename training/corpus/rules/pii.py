"""Personal data and secrets: replaced by values of the same kind that belong to nobody.

Addresses are replaced by those that are reserved for documentation, so that sentences keep their form and a model never
learns a tag that no person writes: email@example.com (RFC 2606), 192.0.2.1 (RFC 5737), 2001:db8::1 (RFC 3849) and
555-0100, a number reserved for fiction. FineWeb (https://arxiv.org/abs/2406.17557) also writes plain addresses, but its
IP addresses are real ones. A secret keeps the prefix that shows its kind, followed by eight X.

Precision comes before recall: a name, a street, or a number in an unusual format stays.

Every pattern begins with a fixed text or with digits that are looked for first, and its repetitions are bounded or
possessive, so that the time is linear in the length of any text.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from training.stages.recipe import option

Kind = Literal["email", "ip", "phone", "card", "secret"]
EMAIL = "email@example.com"
IPV4 = "192.0.2.1"
IPV6 = "2001:db8::1"
PHONE = "555-0100"
CARD = "XXXX XXXX XXXX XXXX"
MASK = "XXXXXXXX"

# Top-level domains of more than two letters that people write to. The list leaves `vector@matrix.inverse` alone.
_DOMAINS = "com|org|net|edu|gov|mil|int|info|biz|name|pro|coop|aero|museum|mobi|travel|jobs|cat|asia|tel|post|app|dev"
_DOMAINS += "|xyz|online|site|shop|store|blog|cloud|email|tech|live|club|agency|eu"
_EMAIL = re.compile(
    r"[A-Za-z0-9._%+\-](?<![A-Za-z0-9._%+\-]{2})[A-Za-z0-9._%+\-]{0,63}+"
    rf"@((?:[A-Za-z0-9-]{{1,63}}+\.){{1,6}}(?i:{_DOMAINS}|[a-z]{{2}}))(?![\w-]|\.\w)"
)
_RESERVED_DOMAIN = re.compile(r"(?i)(?:^|\.)(?:example(?:\.(?:com|net|org))?|test|invalid|localhost)$")

_IPV4 = re.compile(r"[0-9](?<![\w.\-][0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![\w\-]|\.[0-9])")
_IPV6 = re.compile(r"[23](?<![\w:.][23])[0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
# Four small numbers are more often a version or a section than an address: 1 in 4,000 addresses has only numbers
# up to 31.
_LARGEST_IN_VERSION = 31
_VERSION_BEFORE = re.compile(r"(?i)(?:version|release|firmware|build|rev|[=<>~!^]=?|\bv)\.?\s?$")

_CARD = re.compile(
    r"[3-6](?<![\w.+\-][3-6])(?:[0-9]{3}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}|[0-9]{3}([ -])[0-9]{6}\2[0-9]{5})(?![\w\-])"
)
_INTERNATIONAL_PHONE = re.compile(r"\+(?<![\w+]\+)[1-9][0-9]{0,14}+(?:[ .\-]?\(?[0-9]{1,5}\)?){0,6}(?![\w\-])")
_NATIONAL_PHONE = re.compile(
    r"(?:\((?<!\w\()[2-9][0-9]{2}\) ?|[2-9](?<![\w.+\-/][2-9])[0-9]{2}(?P<mark>[.\-]))"
    r"[2-9][0-9]{2}(?(mark)(?P=mark)|[.\-])[0-9]{4}(?![\w\-]|\.[0-9])"
)
_DIGIT = re.compile("[0-9]")
_LETTER = re.compile("[A-Za-z]")

_ASSIGNED = re.compile(r"(?P<equals>(?:=>?|:)[ \t]{0,4})(?P<quote>[\"'])(?P<value>[^\s\"'<>{}$%]{6,200}+)(?P=quote)")
_SECRET_NAME = re.compile(
    r"(?i)(?:passw(?:or)?d|passphrase|secret|(?:api|access|auth|private)[_-]?(?:key|token))\w{0,20}[\"']?[ \t]{0,4}$"
)
_PEM = re.compile(
    r"(-----BEGIN (?:[A-Z]{1,12} ){0,2}PRIVATE KEY(?: BLOCK)?-----)((?:\s?[A-Za-z-]{1,20}+: [^\n]{0,100}+\n){0,4}"
    r"[A-Za-z0-9+/=\s\\\"',:]{40,}+)"
)


class Redacted(NamedTuple):
    """A text with its personal data replaced, and how often each kind was found."""

    text: str
    counts: dict[str, int]


@dataclass
class PIIConfig:
    """Personal data to replace."""

    kinds: list[Kind] = option(
        list, "personal data to replace: email, ip, phone, card, secret (keys, tokens, passwords); none by default"
    )


@dataclass(frozen=True)
class _Pattern:
    """Matches and what becomes of them; None from `replacement` leaves a match alone.

    Attributes:
        hint: whether a text may hold a match at all; cheap.
    """

    kind: Kind
    name: str
    hint: Callable[[str], object]
    expression: re.Pattern
    replacement: Callable[[re.Match], str | None]


class Redactor:
    """Replaces personal data: a function of the text alone, which changes nothing if it is applied again."""

    def __init__(self, config: PIIConfig):
        self._kinds = frozenset(config.kinds)

    def __call__(self, text: str) -> Redacted:
        counts: dict[str, int] = {}
        for pattern in _PATTERNS:
            if pattern.kind in self._kinds and pattern.hint(text):
                text = _replace(pattern, text, counts)
        return Redacted(text, counts)


def _replace(pattern: _Pattern, text: str, counts: dict[str, int]) -> str:
    found = 0

    def replacement(match: re.Match) -> str:
        nonlocal found
        new = pattern.replacement(match)
        if new is None or new == match[0]:
            return match[0]
        found += 1
        return new

    text = pattern.expression.sub(replacement, text)
    if found:
        counts[pattern.name] = counts.get(pattern.name, 0) + found
    return text


def _email(match: re.Match) -> str | None:
    local = match[0].partition("@")[0]
    if local == "git" or _RESERVED_DOMAIN.search(match[1]):  # git@host names a repository
        return None
    return EMAIL


def _ipv4(match: re.Match) -> str | None:
    numbers = [int(number) for number in match[0].split(".")]
    if max(numbers) > 255 or max(numbers) <= _LARGEST_IN_VERSION:
        return None
    before = match.string[max(match.start() - 12, 0) : match.start()]
    if _VERSION_BEFORE.search(before) or not ipaddress.ip_address(bytes(numbers)).is_global:
        return None
    return IPV4


def _ipv6(match: re.Match) -> str | None:
    try:
        address = ipaddress.IPv6Address(match[0])
    except ValueError:
        return None
    return IPV6 if address.is_global else None


def _card(match: re.Match) -> str | None:
    digits = [int(digit) for digit in match[0] if digit.isdigit()]
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]
    return CARD if (sum(digits[::-2]) + sum(doubled)) % 10 == 0 else None


def _international_phone(match: re.Match) -> str | None:
    digits = sum(map(str.isdigit, match[0]))
    written_apart = digits < len(match[0]) - 1
    if PHONE in match[0] or not (8 if written_apart else 11) <= digits <= 15:
        return None
    return PHONE


def _national_phone(match: re.Match) -> str | None:
    return None if re.search(r"555.01[0-9]{2}$", match[0]) else PHONE  # reserved for fiction


def _assignment(match: re.Match) -> str | None:
    before = match.string[max(match.start() - 64, 0) : match.start()]
    value, quote = match["value"], match["quote"]
    if not (_DIGIT.search(value) and _LETTER.search(value) and _SECRET_NAME.search(before)):
        return None
    return f"{match['equals']}{quote}{MASK}{quote}"


def _holds(part: str) -> Callable[[str], bool]:
    return lambda text: part in text


# The regex engine searches fast for a pattern that begins with a fixed text, slowly for one that begins with a choice.
_EQUALS_WORD = re.compile(r"=>?[ \t]{0,4}[\"'][^\s\"'<>{}$%]{6}")
_COLON_WORD = re.compile(r":[ \t]{0,4}[\"'][^\s\"'<>{}$%]{6}")
_AT_DOMAIN = re.compile(r"@(?<=[A-Za-z0-9._%+\-]@)[A-Za-z0-9-]{1,63}\.")
_THREE_DOTS = re.compile(r"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]")
_TWO_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")


def _assignment_hint(text: str) -> bool:
    return bool(_EQUALS_WORD.search(text) or _COLON_WORD.search(text))


_DASH_NUMBER = re.compile(r"-(?<=[0-9]-)[0-9]{4}")
_DOT_NUMBER = re.compile(r"\.(?<=[0-9]\.)[0-9]{4}")


def _national_phone_hint(text: str) -> bool:
    return bool(_DASH_NUMBER.search(text) or _DOT_NUMBER.search(text))


def _has_number(text: str) -> bool:
    """Whether there are enough digits for a card number."""
    encoded = text.encode()
    return len(encoded) - len(encoded.translate(None, b"0123456789")) >= 15


def _token(name: str, prefix: str, body: str, hint: Callable[[str], object] | None = None) -> _Pattern:
    """A pattern for keys with a fixed prefix that are not part of a longer word."""
    expression = re.compile(f"({prefix})(?<![A-Za-z0-9_-]{prefix})(?:{body})(?![A-Za-z0-9_-])")
    return _Pattern("secret", name, hint or _holds(prefix), expression, lambda match: match[1] + MASK)


_PATTERNS = (
    _Pattern("secret", "private_key", _holds("-----BEGIN "), _PEM, lambda match: f"{match[1]}\n{MASK}\n"),
    _token("aws_key", "A[KS]IA", "[A-Z0-9]{16}", re.compile("A[KS]IA").search),
    _token("github_token", "gh[pousr]_", "[A-Za-z0-9]{36,255}+", re.compile("gh[pousr]_").search),
    _token("github_token", "github_pat_", "[A-Za-z0-9_]{22,255}+"),
    _token("slack_token", "xox[abeoprs]-", "[A-Za-z0-9-]{10,250}+", _holds("xox")),
    _token("google_key", "AIza", "[A-Za-z0-9_-]{35}"),
    _token("huggingface_token", "hf_", "[A-Za-z0-9]{34,100}+"),
    _token("jwt", "eyJ", r"[A-Za-z0-9_-]{10,4000}+\.eyJ[A-Za-z0-9_-]{10,4000}+\.[A-Za-z0-9_-]{10,4000}+"),
    _Pattern("secret", "password", _assignment_hint, _ASSIGNED, _assignment),
    _Pattern("email", "email", _AT_DOMAIN.search, _EMAIL, _email),
    _Pattern("ip", "ipv4", _THREE_DOTS.search, _IPV4, _ipv4),
    _Pattern("ip", "ipv6", _TWO_COLONS.search, _IPV6, _ipv6),
    _Pattern("card", "card", _has_number, _CARD, _card),
    _Pattern("phone", "phone", _holds("+"), _INTERNATIONAL_PHONE, _international_phone),
    _Pattern("phone", "phone", _national_phone_hint, _NATIONAL_PHONE, _national_phone),
)
