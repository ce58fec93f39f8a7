"""lm-eval's HumanEval on other items, with more samples, or with shorter answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval.tasks
import yaml


def write_humaneval(
    folder: Path,
    items: Path,
    samples: int | None = None,
    ks: Sequence[int] = (1,),
    temperature: float = 0.8,
    max_gen_toks: int | None = None,
) -> str:
    """Write a task file, and return the task's name.

    Args:
        items: a `.jsonl` file in HumanEval's columns.
        samples: answers to each item, drawn at `temperature`; None for one greedy answer.
        ks: for which pass@k.
    """
    own = Path(lm_eval.tasks.__file__).parent / "humaneval"
    index = lm_eval.tasks.TaskManager(include_path=str(own), include_defaults=False).task_index
    generation = dict(index["humaneval"].cfg["generation_kwargs"])
    name = "humaneval" if samples is None else f"humaneval_{samples}"
    content: dict[str, Any] = {
        "include": str(own / "humaneval.yaml"),
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(items.resolve())}},
        "generation_kwargs": generation,
    }
    if max_gen_toks is not None:
        generation["max_gen_toks"] = max_gen_toks
    text = ""
    if samples is not None:
        generation |= {"do_sample": True, "temperature": temperature, "top_p": 0.95}
        content["repeats"] = samples
        # The metric is a function, which YAML writes only as lm-eval's own tag.
        text = "metric_list:\n  - metric: !function lm_eval.tasks.humaneval.utils.pass_at_k\n"
        text += f"    aggregation: mean\n    higher_is_better: true\n    k: {list(ks)}\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False) + text, encoding="utf-8")
    return name
