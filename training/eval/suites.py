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
    "small": ("blimp", "lambada_openai"),
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
