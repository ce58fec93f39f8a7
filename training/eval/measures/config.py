"""The recipe of `scratch evaluate`. Imports nothing heavy, so that `--help` is fast."""

from dataclasses import dataclass

from training.stages.recipe import PathText, option, required


@dataclass
class ChatConfig:
    """Held-out questions of one file, and how their answers are scored."""

    file: PathText = required(
        "JSON lines: conversations, prompts with or without completion, alpaca, ShareGPT or questions"
    )
    rewards: list[str] = option(list, "reward functions that score each answer, as in reward_funcs of `scratch grpo`")
    reward_model: PathText | None = option(None, "model from `scratch reward` that scores each answer")


@dataclass
class EvalLimits:
    """Number of held-out records that each measure uses."""

    chats: int = option(200, "questions from each file in 'chats', drawn with 'seed'", at_least=1)
    pairs: int = option(300, "pairs from each file in 'pairs', drawn with 'seed'", at_least=1)
    tasks: int | None = option(None, "maximum items of each task, from its beginning (default: all)", at_least=1)


@dataclass
class EvaluateConfig:
    """Models, what to measure them on, and how.

    Raises:
        ValueError: nothing to measure, or options that need 'tasks' without it.
    """

    output_dir: PathText = required("folder for the results")
    models: dict[str, PathText] = required("models to compare: name to model folder, or to a model's name on the Hub")
    data: PathText | None = option(
        None,
        "output of `scratch prepare`: bits per byte of its validation split, and data of the tasks in tasks_dir",
        group="Measures",
    )
    texts: dict[str, PathText] = option(
        dict, "bits per byte of any text: name to a file that `scratch prepare` reads", group="Measures"
    )
    chats: dict[str, ChatConfig] = option(
        dict, "generated answers to held-out questions: name to file and scoring", group="Measures"
    )
    pairs: dict[str, PathText] = option(
        dict, "preference accuracy on held-out pairs: name to a file in any format of `scratch dpo`", group="Measures"
    )
    tasks: list[str] = option(
        list,
        "suites (mmlu, hellaswag, arc, piqa, blimp, lambada, gsm8k, humaneval, small) and lm-eval tasks, from "
        "tasks_dir or lm-eval's own",
        group="Tasks of lm-eval",
    )
    tasks_dir: PathText = option(
        "recipes/lm_eval", "folder of task files whose data `scratch prepare` writes", group="Tasks of lm-eval"
    )
    data_dir: PathText | None = option(
        None,
        "folder with the data of lm-eval's own tasks, instead of the Hub; format in docs/evaluation.md",
        group="Tasks of lm-eval",
    )
    num_fewshot: int | None = option(
        None,
        "few-shot examples before each task item (default: each task's own number)",
        at_least=0,
        group="Tasks of lm-eval",
    )
    fewshot_seeds: list[int] = option(
        list, "seeds for drawing the examples; the result is their mean and spread", group="Tasks of lm-eval"
    )
    apply_chat_template: bool = option(
        False, "render task items with the chat template, as messages of the user", group="Tasks of lm-eval"
    )
    limits: EvalLimits = option(EvalLimits, "number of held-out records")
    max_new_tokens: int = option(160, "maximum tokens of a generated answer", at_least=1, group="Generation and memory")
    context: int | None = option(
        None,
        "maximum context in tokens; default: the model's own, at most 2048",
        at_least=1,
        group="Generation and memory",
    )
    batch_size: int = option(
        4, "sequences per forward pass; generation uses 16 times as many", at_least=1, group="Generation and memory"
    )
    seed: int = option(0, "seed for drawing the held-out records", group="Reproducibility")

    def __post_init__(self):
        if not self.models:
            raise ValueError("'models' is empty; give at least one name and model folder")
        if not (self.data or self.texts or self.chats or self.pairs or self.tasks):
            raise ValueError("nothing to measure; give 'data', 'texts', 'chats', 'pairs' or 'tasks'")
        if not self.tasks:
            only_for_tasks = {
                "data_dir": self.data_dir,
                "num_fewshot": self.num_fewshot,
                "fewshot_seeds": self.fewshot_seeds,
                "apply_chat_template": self.apply_chat_template,
                "limits.tasks": self.limits.tasks,
            }
            for key, value in only_for_tasks.items():
                if value not in (None, False, []):
                    raise ValueError(f"'{key}' has no effect without 'tasks'; remove it, or add 'tasks'")
        if len(set(self.fewshot_seeds)) < len(self.fewshot_seeds):
            raise ValueError("'fewshot_seeds' lists a seed twice; remove one of them")
