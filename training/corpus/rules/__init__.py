"""Rules that reject documents: each has a name, a source, a published limit, and names the value out of bounds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.corpus.rules import code, gopher, web
from training.corpus.rules.languages import LanguageRule
from training.corpus.rules.length import LENGTH, too_many_characters
from training.corpus.rules.licences import RestrictiveLicence
from training.corpus.rules.profanity import Profanity
from training.corpus.rules.rule import Rejection, Rule
from training.corpus.rules.statistics import Statistics
from training.stages.recipe import PathText, nearest, option

__all__ = ["RULES", "SETS", "Rejection", "Rules", "RulesConfig", "describe_rules"]

# In the order in which they are applied: the cheap ones first.
RULES = {
    rule.name: rule
    for rule in (*LENGTH, *code.CODE, *gopher.QUALITY, *web.FINEWEB, *web.C4, *gopher.REPETITION, code.unparsable)
}


def _published(rules: Iterable[Rule]) -> dict[str, float]:
    return {rule.name: rule.limit for rule in rules}


# The rules for each kind of text, by name and limit. Books are edited already, so the rules only drop what is not
# text (tables, indices, adverts) or repeats itself. Their short lines, chapters that consist of one
# paragraph, dialogue that ends in quotation marks, and verse without punctuation at line ends are normal.
SETS: dict[str, dict[str, float | bool]] = {
    "none": {},
    "web": {
        "too_many_characters": too_many_characters.limit,
        **_published((*gopher.QUALITY, *web.FINEWEB, *web.C4, *gopher.REPETITION)),
        "duplicate_line_characters": 0.1,  # FineWeb
    },
    "books": {
        "too_many_characters": too_many_characters.limit,
        **_published((*gopher.QUALITY, web.lorem_ipsum, *gopher.REPETITION)),
        "too_few_words": 20,
        "too_many_words": False,
        "ellipsis_lines": False,
        "few_alphabetic_words": 0.6,
        "duplicate_lines": False,
        "duplicate_paragraphs": False,
    },
    "code": {**_published((*LENGTH, *code.CODE)), "too_many_characters": 200_000},
}
SETS["python"] = SETS["code"] | {"unparsable": code.unparsable.limit}


@dataclass
class RulesConfig:
    """Rules that drop documents."""

    set: Literal["web", "books", "code", "python", "none"] = option(
        "none", "set of rules for a kind of text; python adds to code that the file must parse"
    )
    limits: dict[str, float | bool] = option(
        dict, "limits of individual rules, as in {too_few_words: 20, short_lines: false}; true is the published limit"
    )
    languages: list[str] = option(list, "ISO 639-1 codes of the languages to keep (default: all)")
    min_probability: float = option(
        0.65, "minimum probability of the identified language, as in FineWeb", at_least=0, at_most=1
    )
    drop_restrictive_licences: bool = option(
        False, "drop files whose head states a licence that requires more than attribution"
    )
    profanity: PathText | None = option(
        None, "file with one word or phrase per line; drop texts that contain one, as in C4"
    )

    def __post_init__(self):
        for name, limit in self.limits.items():
            if name not in RULES:
                raise ValueError(f"'limits': unknown rule '{name}'; {nearest(str(name), RULES)}")
            if not isinstance(limit, (int, float)):
                raise ValueError(f"'limits.{name}' takes a number, true or false, not {limit!r}")

    def chosen_limits(self) -> dict[str, float]:
        """Rule names and limits in the order in which they are applied."""
        limits = SETS[self.set] | self.limits
        chosen = {name: limits[name] for name in RULES if limits.get(name, False) is not False}
        return {name: RULES[name].limit if limit is True else limit for name, limit in chosen.items()}


class Rules:
    """The rules of a configuration. `check` is a function of the text alone.

    Raises:
        UserError: the file of `profanity` cannot be read, or `languages` needs a package that is not installed.
    """

    def __init__(self, config: RulesConfig):
        self._config = config
        rules = [RULES[name].with_limit(limit) for name, limit in config.chosen_limits().items()]
        self.rules: list[Callable[[Statistics], Rejection | None]] = list(rules)
        if config.drop_restrictive_licences:
            self.rules.append(RestrictiveLicence())
        if config.profanity:
            self.rules.append(Profanity(Path(config.profanity)))
        if config.languages:
            self.rules.append(LanguageRule(config.languages, config.min_probability))

    def __reduce__(self):
        # Other processes get the configuration, which determines everything: the language model is large.
        return Rules, (self._config,)

    def check(self, text: str) -> Rejection | None:
        """The rejection by the first rule that rejects the text, or None."""
        statistics = Statistics(text)
        for rule in self.rules:
            rejection = rule(statistics)
            if rejection is not None:
                return rejection
        return None


def describe_rules(config: RulesConfig) -> str:
    """The limits of a configuration and the measure of each rule, a line for each, for the terminal and the card."""
    limits = config.chosen_limits()
    width = max(map(len, limits), default=0)
    return "\n".join(
        f"{name:<{width}}  {RULES[name].bound} {limit:<8g} {RULES[name].description}" for name, limit in limits.items()
    )
