"""The table of results, and what is said below it."""

from training.common.tables import as_markdown
from training.eval.results.table import notes, results_table

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
        "chats": {
            "sums": {
                "ends": FIGURE | {"value": 0.5, "left_out": 1, "unit": "share"},
                "reward": FIGURE | {"value": 1.5, "stderr": 0.25, "left_out": 3, "unit": "number"},
                "bits per byte": FIGURE | {"value": 2.25, "left_out": 4, "unit": "number"},
                "mine": {"value": None, "stderr": None, "n": 0, "left_out": 401, "unit": "number"},
            }
        },
        "pairs": {
            "polite": FIGURE | {"value": 0.51, "chance": 0.5, "left_out": 5, "margin": {"value": -2, "stderr": 1}}
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
        "| model | books: bits per byte | sums: reward | sums: reference, bits per byte | polite: margin "
        "| lambada_openai: log-likelihood | sums: ends | polite: preference accuracy (chance 50%) "
        "| arc_easy: acc (chance 25%) | lambada_openai: acc | gsm8k: exact_match (strict-match) |",
        "| base | 2.096 ± 0.016 | 1.500 ± 0.250 | 2.250 ± 0.020 | -2.000 ± 1.000 | -12.35 ± 0.68 | 50.0 ± 2.0 "
        "| 51.0 ± 2.0 | 28.0 ± 2.0 | 1.0 ± 2.0 | - |",
    ]


def test_near_chance_is_said_plainly():
    assert notes(MODELS) == [
        "near chance (within two standard errors of guessing): base: polite: preference accuracy, arc_easy: acc",
        "base: sums: 1 questions left out, which leave no room in the context for an answer",
        "base: sums: reward: 2 answers not judged",
        "base: sums: 4 reference answers left out, being longer than the context",
        "base: sums: mine: 400 answers not judged",
        "base: polite: 5 pairs left out, being longer than the context",
        "sft: arc_easy: 2 items left out, their answers being longer than the context",
        "sft: arc_easy: 3 of 400 items lose their beginning, being longer than the context",
        "sft: gsm8k: mean of 2 draws of examples, which differ by a standard deviation of 2.8 points",
    ]
