"""Evaluation suites by their usual names, each a list of lm-eval's tasks and groups."""

# Any other name is one of lm-eval's own. `lambada` is OpenAI's version of the text, the one usually reported; lm-eval's
# own tag of that name runs two versions.
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

# Groups that lm-eval does not define. Small models learn agreement first; on all of BLiMP, models of a few million
# parameters stay at chance (figures in docs/evaluation.md).
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

# Folders below lm_eval/tasks that hold the suites: reading these is quick, the index of all tasks takes ten seconds.
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
    """The tasks of suites, each once and in order; other names unchanged."""
    return list(dict.fromkeys(task for name in names for task in SUITES.get(name, (name,))))
