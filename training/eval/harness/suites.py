"""Evaluation suites by the names people use, each a list of lm-eval's tasks and groups."""

# A name that is no suite is one of lm-eval's own. `lambada` is OpenAI's version of the text, which is the one that is
# mostly reported; lm-eval's own tag of that name runs two.
SUITES: dict[str, tuple[str, ...]] = {
    "mmlu": ("mmlu",),
    "hellaswag": ("hellaswag",),
    "arc": ("arc_easy", "arc_challenge"),
    "piqa": ("piqa",),
    "blimp": ("blimp",),
    "lambada": ("lambada_openai",),
    "gsm8k": ("gsm8k",),
    "humaneval": ("humaneval",),
    "small": ("blimp_agreement", "lambada_openai"),
}

# Groups of lm-eval's tasks that it has not itself. Of BLiMP, agreement is what a small model learns first; on the whole
# of it models of a few million parameters stay at chance together (docs/evaluation.md has the figures).
GROUPS: dict[str, tuple[str, ...]] = {
    "blimp_agreement": (
        "blimp_determiner_noun_agreement_1",
        "blimp_determiner_noun_agreement_2",
        "blimp_determiner_noun_agreement_irregular_1",
        "blimp_determiner_noun_agreement_irregular_2",
        "blimp_determiner_noun_agreement_with_adjective_1",
        "blimp_determiner_noun_agreement_with_adj_2",
        "blimp_determiner_noun_agreement_with_adj_irregular_1",
        "blimp_determiner_noun_agreement_with_adj_irregular_2",
        "blimp_irregular_plural_subject_verb_agreement_1",
        "blimp_irregular_plural_subject_verb_agreement_2",
        "blimp_regular_plural_subject_verb_agreement_1",
        "blimp_regular_plural_subject_verb_agreement_2",
    ),
}

# Where below lm_eval/tasks the suites are: reading these folders takes a moment, the index of all tasks ten seconds.
FOLDERS = (
    "arc",
    "blimp",
    "gsm8k",
    "hellaswag",
    "humaneval",
    "lambada",
    "mmlu/default",
    "piqa",
    "super_glue/copa",
    "winogrande",
    "wsc273",
)


def expand(names: list[str]) -> list[str]:
    """Suites as the tasks they stand for, each once, in their order; other names as they are."""
    return list(dict.fromkeys(task for name in names for task in SUITES.get(name, (name,))))
