"""What lm-eval's results come to: figures with their errors and the level of chance, and what came of every item."""

import math
import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from training.common.estimates import mean_with_stderr
from training.eval.measures.items import Outcome, identify


@dataclass(frozen=True)
class Scores:
    """What tasks came to for one model.

    Attributes:
        figures: for each task and group asked for, a figure (`value`, `stderr`, `n`, `chance`, `cut`) a metric, the
            task's first metric first. `chance` is the score of picking at random, None where the task is not a
            choice. `cut` counts the items that are longer than the context and lose their beginning, `left_out` those
            of which even an answer is, so that they cannot be scored. Of several seeds `value` is the mean and
            `stderr` that of the items' means; `by_seed` and `spread`, their standard deviation, tell the seeds apart.
        parts: for each group, the same of its tasks.
        outcomes: of every item.
    """

    figures: dict[str, dict[str, dict[str, Any]]]
    parts: dict[str, dict[str, dict[str, dict[str, Any]]]]
    outcomes: list[Outcome]


def item_outcomes(results: dict[str, Any]) -> dict[str, dict[int, Outcome]]:
    """What came of every item by task and by its number in the task."""
    outcomes: dict[str, dict[int, Outcome]] = {}
    for task, samples in results["samples"].items():
        scores: dict[int, dict[str, float]] = defaultdict(dict)
        weights, names = {}, {}
        for sample in samples:
            number = sample["doc_id"]
            names[number] = identify(sample["doc"])
            for metric in sample["metrics"]:
                value = sample[metric]
                if metric == "bits_per_byte":
                    loglikelihood, weights[number] = value
                    scores[number][metric] = -loglikelihood / math.log(2) / weights[number]
                elif isinstance(value, int | float):
                    # A perplexity is made of the log-likelihoods of the items.
                    key = "log-likelihood" if metric == "perplexity" else _key(metric, sample["filter"])
                    scores[number][key] = float(value)
        outcomes[task] = {
            number: Outcome(task, names[number], found, weights.get(number)) for number, found in scores.items()
        }
    return outcomes


def mean_outcomes(runs: list[dict[str, dict[int, Outcome]]]) -> dict[str, dict[int, Outcome]]:
    """The scores of each item, averaged over the seeds."""
    merged = {}
    for task, items in runs[0].items():
        again = [run[task] for run in runs if task in run]
        merged[task] = {
            number: Outcome(
                task,
                item.item,
                {metric: statistics.fmean(run[number].scores[metric] for run in again) for metric in item.scores},
                item.weight,
            )
            for number, item in items.items()
        }
    return merged


def _key(metric: str, filtered: str) -> str:
    return metric if filtered == "none" else f"{metric} ({filtered})"


def task_figures(
    name: str, runs: list[dict[str, Any]], outcomes: dict[int, Outcome], left_out: int, lm: Any
) -> dict[str, dict[str, Any]]:
    """A figure a metric of a task, see `Scores`.

    Args:
        runs: what lm-eval returned, once a seed.
        outcomes: of the task's items, see `mean_outcomes`.
        left_out: items that were not scored.
        lm: lm-eval's model.
    """
    config, samples = runs[0]["configs"][name], runs[0]["samples"][name]
    chance = None
    if config["output_type"] == "multiple_choice":
        choices = [_count_choices(sample["arguments"]) for sample in samples]
        chance = sum(1 / count for count in choices) / len(choices)
    cut = _count_cut(samples, lm)
    figures = _seeded(name, runs)
    if "perplexity" in figures:  # whose logarithm, the mean over items, says more where it is large
        figures["log-likelihood"] = mean_with_stderr([item.scores["log-likelihood"] for item in outcomes.values()])
    for key, entry in figures.items():
        if entry["stderr"] is None or "by_seed" in entry:
            entry["stderr"] = _own_error(list(outcomes.values()), key, entry["value"])
        entry |= {"n": runs[0]["n-samples"][name]["effective"], "chance": chance, "cut": cut, "left_out": left_out}
    first = config["metric_list"][0]["metric"]
    return {key: figures[key] for key in sorted(figures, key=lambda key: key.split(" (")[0] != first)}


def group_figures(
    group: Any, runs: list[dict[str, Any]], tasks: dict[str, dict[str, dict[str, Any]]]
) -> dict[str, dict[str, Any]]:
    """A figure a metric that lm-eval's group aggregates, from the `task_figures` of its tasks."""
    from lm_eval.api.metrics import pooled_sample_stderr, unweighted_mean_stderr

    figures = {}
    for aggregate in group.aggregate_metric_list:
        for key, entry in _seeded(group.name, runs).items():
            parts = [task[key] for task in tasks.values() if key in task]
            if key.split(" (")[0] != aggregate.metric or not parts:
                continue
            weights = [part["n"] if aggregate.weight_by_size else 1 for part in parts]
            chances = [part["chance"] for part in parts]
            errors = [part["stderr"] for part in parts]
            stderr = None
            if None not in errors:
                by_size = aggregate.weight_by_size
                stderr = float(pooled_sample_stderr(errors, weights) if by_size else unweighted_mean_stderr(errors))
            figures[key] = entry | {
                "stderr": stderr,
                "n": sum(part["n"] for part in parts),
                "chance": None if None in chances else mean_with_stderr(chances, weights)["value"],
                "cut": sum(part["cut"] for part in parts),
                "left_out": sum(part["left_out"] for part in parts),
            }
    return figures


def _own_error(items: list[Outcome], key: str, value: float) -> float | None:
    """The standard error of a metric over the items of a task, None where it is no mean of theirs.

    That of a perplexity is the perplexity times that of the mean log-likelihood, by the delta method.
    """
    metric, factor = ("log-likelihood", value) if key == "perplexity" else (key, 1.0)
    scored = [item for item in items if metric in item.scores]
    if not scored:
        return None
    weights = None if scored[0].weight is None else [item.weight for item in scored]
    stderr = mean_with_stderr([item.scores[metric] for item in scored], weights)["stderr"]
    return stderr if stderr is None else factor * stderr


def _seeded(name: str, runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`value` and `stderr` a metric, as lm-eval gives them; of several seeds the mean, `by_seed` and `spread`."""
    scores = [run["results"][name] for run in runs if name in run["results"]]
    figures = {}
    for key, value in scores[0].items():
        metric, comma, filtered = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        stderr = scores[0].get(f"{metric}_stderr,{filtered}")
        entry = {"value": value, "stderr": float(stderr) if isinstance(stderr, float) else None}  # it writes "N/A"
        if len(scores) > 1:
            seeds = [score[key] for score in scores]
            entry |= {"value": statistics.fmean(seeds), "by_seed": seeds, "spread": statistics.stdev(seeds)}
        figures[_key(metric, filtered)] = entry
    return figures


def _count_choices(arguments: list[tuple[str, str]]) -> int:
    """Choices of one question, from the (context, continuation) pairs it was scored on.

    Either the continuations differ or, in tasks such as Winogrande, the contexts do; some metrics score each
    continuation once more without its context.
    """
    return max(len(set(column)) for column in zip(*arguments))


def _count_cut(samples: list[dict[str, Any]], lm: Any) -> int:
    """Items of which lm-eval drops the beginning, since they do not fit in the context."""
    cut = set()
    for sample in samples:
        if len(sample["arguments"][0]) == 1:  # a whole text, which is read in windows
            return 0
        for context, rest in sample["arguments"]:
            room = rest.get("max_gen_toks", lm.max_gen_toks) if isinstance(rest, dict) else 0
            text = context if isinstance(rest, dict) else context + rest
            # A token is a byte at least, so that few texts need to be encoded.
            if len(text.encode()) + room > lm.max_length and len(tokens_of([text], lm)[0]) + room > lm.max_length:
                cut.add(sample["doc_id"])
    return len(cut)


def tokens_of(texts: list[str], lm: Any) -> list[list[int]]:
    return lm.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
