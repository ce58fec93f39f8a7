"""The table of results, and what is said below it."""

from training.eval.table import as_markdown, notes, results_table

FIGURE = {"stderr": 0.02, "n": 400, "cut": 0, "left_out": 0}
MODELS = {
    "base": {
        "texts": {"books": {"value": 2.0961, "stderr": 0.0163, "n": 50}},
        "tasks": {
            "arc_easy": {"acc": FIGURE | {"value": 0.28, "chance": 0.25}},
            "lambada_openai": {
                "perplexity": FIGURE | {"value": 12345.6, "stderr": 56.7, "chance": None},
                "log-likelihood": FIGURE | {"value": -12.345, "stderr": 0.678, "chance": None},
                "acc": FIGURE | {"value": 0.01, "chance": None},
            },
        },
    },
    "sft": {
        "tasks": {
            "arc_easy": {"acc": FIGURE | {"value": 0.4, "chance": 0.25, "cut": 3, "left_out": 2}},
            "gsm8k": {
                "exact_match (strict-match)": FIGURE
                | {"value": 0.1, "chance": None, "by_seed": [0.08, 0.12], "spread": 0.028}
            },
        }
    },
}


def test_shares_in_percent_and_other_numbers_as_they_are():
    assert as_markdown(results_table(MODELS)).splitlines()[::2] == [
        "| model | books: bits per byte | lambada_openai: log-likelihood | arc_easy: acc (chance 25%) "
        "| lambada_openai: acc | gsm8k: exact_match (strict-match) |",
        "| base | 2.096 ± 0.016 | -12.35 ± 0.68 | 28.0 ± 2.0 | 1.0 ± 2.0 | - |",
    ]


def test_near_chance_is_said_plainly():
    assert notes(MODELS) == [
        "near chance (within two standard errors of guessing): base: arc_easy: acc",
        "sft: arc_easy: 2 items left out, their answers being longer than the context",
        "sft: arc_easy: 3 of 400 items lose their beginning, being longer than the context",
        "sft: gsm8k: mean of 2 draws of examples, which differ by a standard deviation of 2.8 points",
    ]
