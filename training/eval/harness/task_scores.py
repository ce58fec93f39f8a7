"""Figures and item outcomes from lm-eval's results, with standard errors and chance levels."""

import math
import statistics
from collections import defaultdict
from dataclasses import replace
from typing import Any

from training.common.estimates import mean_with_stderr
from training.eval.measures.figures import Figure, ItemOutcome, MetricKey, Unit, identify

KIND = "tasks"  # of a `MetricKey`
_SHARES = ("acc", "exact_match", "pass@")  # how lm-eval's names of shares begin
_UNITS: dict[str, Unit] = {"log-likelihood": "nats", "bits_per_byte": "bits per byte"}
Outcomes = dict[int, ItemOutcome]  # by the number of the item in its task


def item_outcomes(results: dict[str, Any]) -> dict[str, Outcomes]:
    """The outcomes of every item, by task and number of the item."""
    outcomes: dict[str, Outcomes] = {}
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
                    # A perplexity is computed from the log-likelihoods of the items.
                    key = "log-likelihood" if metric == "perplexity" else _metric(metric, sample["filter"])
                    scores[number][key] = float(value)
        outcomes[task] = {
            number: ItemOutcome(KIND, task, names[number], found, weights.get(number))
            for number, found in scores.items()
        }
    return outcomes


def mean_outcomes(runs: list[dict[str, Outcomes]]) -> dict[str, Outcomes]:
    """The scores of each item, averaged over the seeds."""
    merged = {}
    for task, items in runs[0].items():
        seeds = [run[task] for run in runs if task in run]
        merged[task] = {
            number: replace(item, scores=_mean_scores([run[number].scores for run in seeds]))
            for number, item in items.items()
        }
    return merged


def _mean_scores(scores: list[dict[str, float]]) -> dict[str, float]:
    return {metric: statistics.fmean(one[metric] for one in scores) for metric in scores[0]}


def _metric(metric: str, filtered: str) -> str:
    return metric if filtered == "none" else f"{metric} ({filtered})"


def task_figures(
    name: str, runs: list[dict[str, Any]], outcomes: Outcomes, left_out: int, lm: Any
) -> dict[MetricKey, Figure]:
    """The figures of a task, its first metric first. `chance` is the score of a random choice among the answers.

    Args:
        runs: lm-eval's results, one per seed.
        outcomes: of the task's items, averaged over the seeds.
        left_out: items that were not scored.
        lm: lm-eval's model.
    """
    config, samples = runs[0]["configs"][name], runs[0]["samples"][name]
    chance = None
    if config["output_type"] == "multiple_choice":
        choices = [count_choices(sample["arguments"]) for sample in samples]
        chance = sum(1 / count for count in choices) / len(choices)
    items = list(outcomes.values())
    figures = _figures_over_seeds(name, runs)
    if "perplexity" in figures:  # the logarithm of a large perplexity is easier to read, and a mean over items
        mean = mean_with_stderr([item.scores["log-likelihood"] for item in items])
        figures["log-likelihood"] = Figure(mean.value, mean.stderr, mean.n, unit="nats")
    shared = {
        "n": runs[0]["n-samples"][name]["effective"],
        "chance": chance,
        "truncated": _count_truncated(samples, lm),
        "left_out": left_out,
    }
    for metric, figure in figures.items():
        if figure.stderr is None or figure.by_seed:
            figure = replace(figure, stderr=_item_stderr(items, metric, figure.value))
        figures[metric] = replace(figure, **shared)
    first = config["metric_list"][0]["metric"]
    ordered = sorted(figures, key=lambda metric: metric.split(" (")[0] != first)
    return {MetricKey(KIND, name, metric): figures[metric] for metric in ordered}


def group_figures(
    group: Any, runs: list[dict[str, Any]], tasks: dict[MetricKey, Figure]
) -> dict[MetricKey, Figure]:
    """The figures of a group, for the metrics that lm-eval aggregates.

    Args:
        group: lm-eval's group object.
        runs: lm-eval's results, one per seed.
        tasks: the figures of its tasks.
    """
    from lm_eval.api.metrics import pooled_sample_stderr, unweighted_mean_stderr

    figures = {}
    for aggregate in group.aggregate_metric_list:
        for metric, figure in _figures_over_seeds(group.name, runs).items():
            members = [member for key, member in tasks.items() if key.metric == metric]
            if metric.split(" (")[0] != aggregate.metric or not members:
                continue
            weights = [member.n if aggregate.weight_by_size else 1 for member in members]
            chances = [member.chance for member in members]
            errors = [member.stderr for member in members]
            stderr = None
            if None not in errors:
                by_size = aggregate.weight_by_size
                stderr = float(pooled_sample_stderr(errors, weights) if by_size else unweighted_mean_stderr(errors))
            figures[MetricKey(KIND, group.name, metric)] = replace(
                figure,
                stderr=stderr,
                n=sum(member.n for member in members),
                chance=None if None in chances else mean_with_stderr(chances, weights).value,
                truncated=sum(member.truncated for member in members),
                left_out=sum(member.left_out for member in members),
            )
    return figures


def _item_stderr(items: list[ItemOutcome], metric: str, value: float) -> float | None:
    """The standard error of a metric over the items of a task; None if the metric is not a mean over items.

    The standard error of a perplexity is the perplexity times that of the mean log-likelihood (delta method).
    """
    metric, factor = ("log-likelihood", value) if metric == "perplexity" else (metric, 1.0)
    scored = [item for item in items if metric in item.scores]
    if not scored:
        return None
    weights = None if scored[0].weight is None else [item.weight for item in scored]
    stderr = mean_with_stderr([item.scores[metric] for item in scored], weights).stderr
    return stderr if stderr is None else factor * stderr


def _figures_over_seeds(name: str, runs: list[dict[str, Any]]) -> dict[str, Figure]:
    """Value and standard error by metric, as lm-eval gives them; with several seeds, the mean and its spread."""
    scores = [run["results"][name] for run in runs if name in run["results"]]
    figures = {}
    for key, value in scores[0].items():
        metric, comma, filtered = key.partition(",")  # lm-eval's `acc,none`
        if not comma or metric.endswith("_stderr"):
            continue
        stderr = scores[0].get(f"{metric}_stderr,{filtered}")
        stderr = float(stderr) if isinstance(stderr, float) else None  # lm-eval writes "N/A"
        unit = "share" if metric.startswith(_SHARES) else _UNITS.get(metric, "score")
        figure = Figure(value, stderr, 0, unit=unit)
        if len(scores) > 1:
            seeds = [score[key] for score in scores]
            figure = replace(figure, value=statistics.fmean(seeds), by_seed=seeds, spread=statistics.stdev(seeds))
        figures[_metric(metric, filtered)] = figure
    return figures


def count_choices(arguments: list[tuple[str, str]]) -> int:
    """Number of choices of one question, from the (context, continuation) pairs it was scored on.

    Either the continuations differ or, in tasks such as Winogrande, the contexts do. Some metrics score each
    continuation once more without its context.
    """
    return max(len(set(column)) for column in zip(*arguments))


def _count_truncated(samples: list[dict[str, Any]], lm: Any) -> int:
    """Number of items whose beginning lm-eval drops, because they exceed the context."""
    truncated = set()
    for sample in samples:
        if len(sample["arguments"][0]) == 1:  # a whole text, which is read in windows
            return 0
        for context, rest in sample["arguments"]:
            room = rest.get("max_gen_toks", lm.max_gen_toks) if isinstance(rest, dict) else 0
            text = context if isinstance(rest, dict) else context + rest
            # A token is at least one byte, so few texts need to be encoded.
            if len(text.encode()) + room > lm.max_length and len(tokens_of([text], lm)[0]) + room > lm.max_length:
                truncated.add(sample["doc_id"])
    return len(truncated)


def tokens_of(texts: list[str], lm: Any) -> list[list[int]]:
    """Token ids of texts, without special tokens."""
    return lm.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
