import argparse
import inspect
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.common.errors import UserError
from training.corpus.rules.cleaning import Cleaner, CleaningConfig

STEPS = [name for name in CleaningConfig.__dataclass_fields__ if name != "set"]


def clean(step: str, text: str):
    return Cleaner(CleaningConfig(**{step: True}))(text)


GUTENBERG = (
    "The Project Gutenberg eBook of Emma\n\nThis ebook is for the use of anyone anywhere.\n\n"
    "*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***\n\nEmma Woodhouse, handsome, clever.\n\n"
    "*** END OF THE PROJECT GUTENBERG EBOOK EMMA ***\n\nUpdated editions will replace the previous one.\n"
)


@pytest.mark.parametrize(
    ("step", "text", "cleaned", "count"),
    [
        ("newlines", "a\r\nb\rc\u2028d\x85e\x0cf", "a\nb\nc\nd\ne\nf", 5),
        ("invisible", "\ufeffsoft\xadhyphen\x00 zero\u200bwidth\u202e", "softhyphen zerowidth", 5),
        ("invisible", "tab\tline\nمی\u200cخواهم", "tab\tline\nمی\u200cخواهم", 0),
        ("gutenberg", GUTENBERG, "Emma Woodhouse, handsome, clever.\n", 2),
        ("gutenberg", "A text.\nEnd of the Project Gutenberg EBook of Emma\nlicence", "A text.\n", 1),
        ("gutenberg", "She liked Project Gutenberg and its books.", "She liked Project Gutenberg and its books.", 0),
        ("markup", "<p class='x'>One <b>two</b></p><br/>three", "One twothree", 5),
        ("markup", "a < b and c > d, <T>, <vector>, List<int>", "a < b and c > d, <T>, <vector>, List<int>", 0),
        ("markup", "a<script>alert('<b>')</script>b<!-- x -->c<style>p {}</style>d", "abcd", 3),
        ("markup", "a<script>never closed", "a<script>never closed", 0),
        ("markup", "Fish &amp; chips &lt;3 &nosuch; AT&T", "Fish & chips <3 &nosuch; AT&T", 2),
        ("markup", "[b]bold[/b] [url=http://a.b]here[/url] [1] a[i]", "bold here  a[i]", 5),
        ("markup", "[[File:x.png|thumb]][[Paris|the city]] of [[France]] '''is''' {{cite}} old[12][edit]",
         "the city of France is  old", 7),
        ("boilerplate", "Please enable JavaScript.\nText.\nWe use cookies here\n12 likes\nRead more »\nShare this",
         "Text.", 5),
        ("boilerplate", "He likes views.\nTom's shares fell.", "He likes views.\nTom's shares fell.", 0),
        ("unfinished_lines", "Home | About\nThis is a sentence.\n\nIt is.\nGo on...\n“So he said.”",
         "This is a sentence.\n\n“So he said.”", 3),
        ("spaces", "a\u00a0b  \nc\t\n\n\n\n\nd", "a b\nc\n\n\nd", 4),
        ("unicode", "cafe\u0301", "café", 1),
    ],
)  # fmt: skip
def test_each_step_mends_and_counts(step, text, cleaned, count):
    assert clean(step, text) == (cleaned, {step: count} if count else {})


@pytest.mark.parametrize(
    ("text", "cleaned", "count"),
    [
        ("he was fÃªted at the fÃªte", "he was fêted at the fête", 1),
        ("one\nâ€œNo,â€\x9d she said\nthree", "one\n“No,” she said\nthree", 1),
        ("“No,” he said, “the façade — René’s — is ½ done…”", "“No,” he said, “the façade — René’s — is ½ done…”", 0),
        ("Übergrößenträger, où, São, Ångström, Ãrea", "Übergrößenträger, où, São, Ångström, Ãrea", 0),
    ],
)
def test_encoding_is_mended_line_by_line(text, cleaned, count):
    pytest.importorskip("ftfy")
    assert clean("encoding", text) == (cleaned, {"encoding": count} if count else {})


def test_sets_choose_steps_and_keys_overrule_them():
    assert CleaningConfig().steps() == []
    assert CleaningConfig(set="code").steps() == ["newlines", "invisible"]
    assert CleaningConfig(set="code", unicode=True, invisible=False).steps() == ["newlines", "unicode"]
    assert {"markup", "boilerplate"} <= set(CleaningConfig(set="web").steps())
    assert not {"markup", "boilerplate"} & set(CleaningConfig(set="books").steps())
    assert "gutenberg" in CleaningConfig(set="books").steps()


def test_every_step_says_in_its_help_where_it_is_on():
    for name in STEPS:
        kinds = [kind for kind in ("web", "books", "code") if name in CleaningConfig(set=kind).steps()]
        named = {3: "(all sets)", 0: "(in no set)"}.get(len(kinds), f"({', '.join(kinds)})")
        help = CleaningConfig.__dataclass_fields__[name].metadata["help"]
        assert help.endswith(named)


def test_code_is_not_harmed():
    source = (
        inspect.getsource(argparse)
        + "\tx = a[i] << 2 if b < c > d else {'&amp;': '<b>'}  \n\n\n\n\ny = 'e\u0301\xa0'\n"
    )
    assert Cleaner(CleaningConfig(set="code"))(source) == (source, {})
    assert Cleaner(CleaningConfig(set="code"))("\ufeffx = 1\r\n").text == "x = 1\n"


def test_steps_work_on_what_earlier_ones_left():
    pytest.importorskip("ftfy")
    web = Cleaner(CleaningConfig(set="web"))
    cleaned = web("cafÃ© <b>x</b>\r\n12 likes\ne\u200b\u0301nd")
    assert cleaned.text == "café x\nénd"
    assert cleaned.counts == {"encoding": 1, "newlines": 1, "invisible": 1, "markup": 2, "boilerplate": 1, "unicode": 1}


PLAIN = [name for name in STEPS if name not in ("encoding", "markup", "gutenberg")]


@given(st.text(st.sampled_from("ab .\t\n\r\x00\x0c\u00ad\u200b\u00a0\u2028e\u0301é<>&\"'"), max_size=60))
def test_a_second_time_mends_nothing(text):
    cleaner = Cleaner(CleaningConfig(**dict.fromkeys(PLAIN, True)))
    once = cleaner(text)
    assert cleaner(once.text) == (once.text, {})
    assert bool(once.counts) == (once.text != text)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="<>[]{}&'"), max_size=200))
def test_plain_words_are_left_alone(text):
    text = text.strip()
    assert Cleaner(CleaningConfig(set="books", encoding=False))(text) == (text, {})
    assert clean("markup", text) == (text, {})


HOSTILE = (
    *("<", "<a ", "<p", "<p x", "<!--", "<script>", "<ref>", "</script", "<style ", "&", "&amp;", "&#", "&amp;amp;"),
    *("[", "[[", "[[a|", "{{", "{{a", "'''", "'''a", "[b", "[url=", "[/", "[[file:", "12 ", "12 likes", "1,1.", "\n"),
    *("\r", " \n", "\n\t", " ", "\t", "\u00a0", "Ã©", "Ã", "e\u0301", "\u200b", "javascript\n", "PROJECT GUTENBERG"),
    *("*** START OF THE PROJECT GUTENBERG EBOOK ", "\n*** END OF", "\nEnd of the ", "likes ", "share on a"),
)


@pytest.mark.parametrize("part", HOSTILE)
def test_work_grows_with_the_text_and_no_faster(part):
    """Linear work is 4 times as much for 4 times the text, quadratic work 16 times."""
    pytest.importorskip("ftfy")
    cleaner = Cleaner(CleaningConfig(**dict.fromkeys(STEPS, True)))

    def seconds(size: int) -> float:
        text = "</script> --> </ref> ]] }} cookie policy " + part * (size // len(part))
        times = []
        for _ in range(2):
            start = time.process_time()
            cleaner(text)
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(200_000) < 10 * seconds(50_000) + 0.02  # seconds of noise


def test_without_ftfy_the_user_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    Cleaner(CleaningConfig(set="code"))
    with pytest.raises(UserError, match=r"'encoding' needs ftfy.*pip install -e .\.\[data\]"):
        Cleaner(CleaningConfig(set="web"))
