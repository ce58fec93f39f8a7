import sys

import pytest

from training.common.errors import UserError
from training.corpus.rules import Rules, RulesConfig
from training.corpus.rules.language_identifier import LanguageIdentifier
from training.corpus.rules.languages import LanguageRule, is_clearly_english
from training.corpus.rules.statistics import Statistics

TEXTS = {
    "en": "The old man went down to the harbour, for he had heard that the ship from Lisbon was there and would sail.",
    "de": "Der alte Mann ging hinunter zum Hafen, denn er hatte gehört, dass das Schiff aus Lissabon dort lag.",
    "fr": "Le vieil homme descendit au port, car il avait entendu dire que le navire de Lisbonne s'y trouvait.",
    "es": "El viejo bajó al puerto, porque había oído que el barco de Lisboa estaba allí y que pronto zarparía.",
    "ru": "Старик спустился к гавани, потому что слышал, что корабль из Лиссабона уже стоит там.",
    "zh": "老人走到港口，因为他听说从里斯本来的船已经到了，很快就要启航。",
}


@pytest.fixture(scope="module")
def identify():
    pytest.importorskip("py3langid")
    return LanguageIdentifier()


@pytest.mark.parametrize("language", TEXTS)
def test_languages_are_told_apart(identify, language):
    found, probability = identify(TEXTS[language])
    assert found == language
    assert probability > 0.65


def test_only_the_wanted_languages_are_kept():
    pytest.importorskip("py3langid")
    rules = Rules(RulesConfig(languages=["de", "en"]))
    assert [language for language, text in TEXTS.items() if rules.check(text) is None] == ["en", "de"]
    rejection = rules.check(TEXTS["fr"])
    assert rejection.rule == "language"
    assert str(rejection).startswith("language: fr with ") and "(de or en with at least 0.65)" in str(rejection)


def test_a_language_that_is_not_clear_is_dropped():
    pytest.importorskip("py3langid")
    assert Rules(RulesConfig(languages=["en"], min_probability=0.65)).check("1 2 3 4 5").rule == "language"
    assert Rules(RulesConfig(languages=["en"], min_probability=1.0)).check("The harbour lay still").rule == "language"


def test_the_middle_of_a_long_text_is_looked_at(identify):
    menu = "Home | Contact | About us | Login "
    assert identify(6 * menu)[0] != "de"
    assert identify(6 * menu + 40 * TEXTS["de"])[0] == "de"


@pytest.mark.parametrize("language", TEXTS)
def test_only_english_is_clearly_english(language):
    assert is_clearly_english(Statistics(2 * TEXTS[language])) == (language == "en")


def test_clearly_english_does_not_ask_the_model():
    pytest.importorskip("py3langid")
    rule = LanguageRule(["en"], min_probability=0.65)
    asked = []
    rule._identify = lambda text: asked.append(text) or ("en", 1.0)
    assert rule(Statistics(2 * TEXTS["en"])) is None and not asked
    assert rule(Statistics(TEXTS["en"].split(",")[0])) is None and len(asked) == 1  # too short to prove anything


def test_an_unknown_language_is_one_line():
    pytest.importorskip("py3langid")
    with pytest.raises(UserError, match="'languages': unknown language 'english'; known: .*en, "):
        Rules(RulesConfig(languages=["english"]))


def test_without_the_package_the_user_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    Rules(RulesConfig())
    with pytest.raises(UserError, match=r'pip install -e "\.\[data\]"'):
        Rules(RulesConfig(languages=["en"]))
