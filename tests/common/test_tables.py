"""Tables as text for a terminal."""

from training.common.tables import as_text


def test_a_wide_table_continues_below():
    names = [f"measure {chr(ord('a') + number)} accuracy" for number in range(12)]
    rows = {"base": "10.0 ± 1.0", "sft": "20.0 ± 1.0"}
    text = as_text([["model", *names], *([name, *[cell] * len(names)] for name, cell in rows.items())])
    assert max(map(len, text.splitlines())) <= 110
    first, second = text.split("\n\n")
    for part in (first, second):
        assert [line.split()[0] for line in part.splitlines()[-2:]] == ["base", "sft"]
    assert text.count("10.0") == text.count("20.0") == 12 and first.count("10.0") > second.count("10.0") > 0


def test_a_table_that_fits_stays_whole():
    assert as_text([["model", "a"], ["base", "1"]]) == "model  a\n--------\nbase   1\n"
