"""Every picture of the package in ordinary and odd cases, as `python tests/plots/pictures.py FOLDER` draws them.

A case is a function that draws to a file. The figures are synthetic; their sizes and names are those that break plots:
77 labels, one step, names of 60 characters, NaN.
"""

import itertools
import math
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

LONG = "the_card_payment_was_not_recognised_by_the_holder_of_account"  # 60 characters
ODD = "costs $5 and $6^\nin two lines"


def names(count: int, long: bool = False) -> list[str]:
    return [f"{LONG[:-3]}{number:03}" if long else f"label_{number}" for number in range(count)]


# confusion.png of `scratch classify`


def confusion(labels: list[str], right: float = 0.8, texts: int = 40, missing: int = 0) -> Callable[[Path], None]:
    def draw(file: Path) -> None:
        from training.plots.confusion import draw_confusion

        drawn = random.Random(0)
        counts = [[0] * len(labels) for _ in labels]
        for row in range(missing, len(labels)):
            for _ in range(texts):
                wrong = (row + drawn.choice((1, 1, 1, 2, 5))) % len(labels)
                counts[row][row if drawn.random() < right + 0.2 * math.sin(row) else wrong] += 1
        draw_confusion(file, counts, labels)

    return draw


# loss.png of every stage that trains


def curve(steps: int, every: int = 10, loss: float = 2.0) -> list[dict]:
    drawn = random.Random(steps)
    records = []
    for step in range(1, steps + 1):
        value = loss + 6 / step**0.4 + drawn.gauss(0, 0.05)
        common = {"step": step, "tokens": 4096 * step, "seconds": 1.5 * step}
        records.append(common | {"loss": value, "bits_per_byte": value / 3, "tokens_per_second": 9000 + step})
        if step % every == 0 or step == steps:
            records.append(common | {"validation_loss": value + 0.1, "validation_bits_per_byte": value / 3})
    return records


def losses(records: list[dict], title: str = "sft", x: str = "step") -> Callable[[Path], None]:
    def draw(file: Path) -> None:
        from training.plots.losses import plot_losses

        plot_losses(records, file, title, x)

    return draw


NOT_FINITE = [{"step": n, "tokens": n, "loss": value} for n, value in enumerate((3.0, math.nan, 2.0, math.inf))]


# plot.png of `scratch plot`


def runs(curves: dict[str, list[dict]], y: str = "loss", remarks: tuple[str, ...] = ()) -> Callable[[Path], None]:
    def draw(file: Path) -> None:
        from training.plots.losses import plot_runs

        plot_runs(curves, file, "tokens", y, remarks)

    return draw


REMARK = "The tokenizers differ, so losses per token do not compare; --y bits_per_byte does"


# reward.png of `scratch grpo` and `scratch rloo`


def reward(steps: int, **changes: float) -> Callable[[Path], None]:
    def draw(file: Path) -> None:
        from training.plots.reward import draw_reward

        drawn = random.Random(0)
        records = [
            {"step": 10 * n, "kl": 0.001 * n**2 + drawn.gauss(0, 0.003), "reward": 1 - 1 / n + drawn.gauss(0, 0.03)}
            for n in range(1, steps + 1)
        ]
        draw_reward([*records[:-1], records[-1] | changes], file, "grpo")

    return draw


# funnel.png of `scratch prepare`


def funnel(reasons: int, long: bool = False, documents: int = 1000, copies: bool = True) -> Callable[[Path], None]:
    def draw(file: Path) -> None:
        from training.corpus.curation.funnel import STEPS, Funnel
        from training.plots.funnel import draw_funnel

        found = Funnel()
        for _ in range(documents):
            found.keep(3000)
        for number, name in enumerate(names(reasons, long)):
            found.drop(name, 900_000 // (number + 1), STEPS[number % len(STEPS)], 300 // (number + 1))
        found.trim("repeated_lines", 100_000 if reasons else 0)
        lengths = {str(2**exponent): 10 * exponent for exponent in range(5, 19 if documents > 1 else 6)}
        near = {"exact": {"1": 90, "2": 20, "8": 1}, "near": {"1": 40, "4": 3, "512": 1}} if copies else {"exact": {}}
        draw_funnel(file, found, lengths, near)

    return draw


# summary.png of `scratch report`


def summary(
    models: list[str], measures: list[str], steps: int, bits: bool = True, **changes: float
) -> Callable[[Path], None]:
    def draw(file: Path) -> None:
        from training.eval.measures.figures import BITS, Figure, MetricKey
        from training.eval.results.picture import draw_summary
        from training.eval.results.results_file import ModelResults

        found = {}
        for place, model in enumerate(models):
            figures = {}
            if bits:
                figures[MetricKey("data", "validation", BITS)] = Figure(1.5 + 0.1 * place, 0.01, 9, unit=BITS)
            for number, name in enumerate(measures):
                value = changes.get(name, 0.5 + 0.5 * math.sin(number + 0.3 * place))
                chance = 0.25 if number % 2 else None
                figures[MetricKey("tasks", name, "acc")] = Figure(value, 0.03, 200, chance)
            found[model] = ModelResults("folder", 1, figures=figures)
        draw_summary(file, curve(steps) if steps else [], found)

    return draw


# comparison.png of `scratch evaluate`


def comparison(
    models: list[str], measures: list[str], stderr: float | None = 0.02, **changes: float
) -> Callable[[Path], None]:
    def draw(file: Path) -> None:
        from training.common.estimates import Difference
        from training.eval.measures.figures import BITS, MetricKey
        from training.eval.results.comparison import MeasureComparison, PairDifference, shown_pairs
        from training.eval.results.picture import draw_comparison

        found = {}
        for number, name in enumerate(measures):
            unit = BITS if number % 4 == 3 else "share"
            pairs = []
            for place, (before, after) in enumerate(itertools.combinations(models, 2)):
                value = changes.get(name, 0.1 * math.sin(number + place))
                verdict = "better" if abs(value) > 0.04 else "no difference shown"
                pairs.append(PairDifference(before, after, Difference(value, stderr, 99, 0.1, "test"), verdict))
            found[MetricKey("texts" if unit == BITS else "tasks", name, BITS if unit == BITS else "acc")] = (
                MeasureComparison(unit, {}, pairs)
            )
        draw_comparison(file, found, shown_pairs(models))

    return draw


# the leaderboard of `scratch arena`


def leaderboard(models: list[str], steps: int) -> Callable[[Path], None]:
    def draw(file: Path) -> None:
        from training.plots.leaderboard import draw_leaderboard

        count = len(models)
        ratings = [(1200 - 30 * place, 1150 - 30 * place, 1260 - 30 * place) for place in range(count)]
        rates = [[None if row == column else 0.5 + 0.4 * math.sin(column - row) for column in range(count)]
                 for row in range(count)]  # fmt: skip
        history = [(50 * n, [1000 + (200 - 30 * place) * n / steps for place in range(count)]) for n in range(steps)]
        draw_leaderboard(file, models, ratings, rates, [[12] * count] * count, history, "120 votes")

    return draw


# phases.png, the strip of frames and ablation.png of `scratch attention`


def attention_record(folder: Path, layers: int, heads: int, steps: list[int], held_out: bool = True):
    """A record in which heads form, with NaN where a measure is not known."""
    import numpy as np

    from training.insight.record import HeadScores, Layout, Probe, Record, RecordWriter, Snapshot, StepScores

    drawn, size = np.random.default_rng(0), 24
    probes = [Probe("repeated", "repeated", [*range(12)] * 2, [LONG[:n] for n in range(12)] * 2, 12)]
    probes.append(Probe("text 1", "held_out" if held_out else "text", [*range(24)], [ODD] * 24))
    layout = Layout(64, 3.0, layers, heads, heads, 4, 0.5, [(0, 0)], probes)
    writer = RecordWriter(folder, layout)
    maps = np.tril(drawn.integers(0, 255, (layers, heads, size, size))).astype(np.uint8)
    vectors = [np.ones((1, size, 4), np.float16)] * len(probes)
    for step in steps:
        scores = [
            HeadScores(step, step * 4096, layer, head, kind, *(drawn.random(5) * step / steps[-1]), 3.0, math.nan)
            for layer in range(layers)
            for head in range(heads)
            for kind in ("repeated", "held_out")[: 1 + held_out]
        ]
        losses = [3 + drawn.random() for _ in range(63)] if held_out else []
        loss = 3.0 if held_out else math.nan
        whole = StepScores(step, step * 4096, loss, -0.1 if held_out else math.nan, 0.5, 4.0, losses)
        writer.write(whole, scores, Snapshot(step, [maps] * len(probes), vectors, vectors, vectors))
    return Record.open(folder)


def phases(layers: int, heads: int, steps: list[int], held_out: bool = True, expected: float | None = 3e7):
    def draw(file: Path) -> None:
        from training.plots.insight.phases import draw_phases

        record = attention_record(file.with_suffix(""), layers, heads, steps, held_out)
        draw_phases(record, [file], ODD + LONG, expected)

    return draw


def frames(steps: list[int], held_out: bool = True):
    def draw(file: Path) -> None:
        from training.plots.insight.film import HeadFilm, draw_frames, draw_moment

        record = attention_record(file.with_suffix(""), 2, 2, steps, held_out)
        draw_maps = draw_frames if len(steps) > 1 else draw_moment
        draw_maps(HeadFilm(record, (1, 1), "induction"), [file], ODD)

    return draw


def ablation(layers: int, heads: int, held_out: bool = True):
    def draw(file: Path) -> None:
        from training.common.estimates import Difference, Estimate
        from training.insight.ablation import Ablation, Ablations
        from training.plots.insight.ablation import draw_ablations

        effects = []
        for layer, head in itertools.product(range(layers), range(heads)):
            change = Difference(math.sin(layer + 2 * head), 0.1, 16, 0.1, "test")
            effects.append(Ablation(((layer, head),), change if held_out else None, 0.3, change))
        whole = Ablations(Estimate(3.0, 0.1, 16) if held_out else None, 1.0, Estimate(0.5, 0.1, 16), effects)
        draw_ablations(whole, layers, heads, [file], LONG + ODD)

    return draw


# tokens.png of `scratch tokenizer --show`


def merges(text: str) -> Callable[[Path], None]:
    """Each pair of letters is a merge, and each two of these."""

    def draw(file: Path) -> None:
        from training.model_io.token_merges import CutText, Merge, Word
        from training.plots.merges import draw_merges

        words = []
        for word in text.split():
            state, made = list(word), []
            while len(state) > 1:
                place = len(made) % (len(state) - 1)
                left, right = state[place : place + 2]
                made.append(Merge(4000 + len(made), place, left, right, left + right))
                state[place : place + 2] = [left + right]
            words.append(Word(word, list(word), made, state, [0]))
        draw_merges(file, CutText(text, "BPE", words), f"Tokens of {LONG}/{LONG}")

    return draw


# pictures of embeddings


def neighbours(tokens: list[str], steps: int) -> Callable[[Path], None]:
    def draw(file: Path) -> None:
        from training.model_io.embeddings import Neighbours
        from training.plots.embeddings import draw_neighbours

        nearest = [("·elif", 0.98), (LONG, 0.7), ("\\n\\n", 0.31), ("$x$", -0.2)]
        found = [Neighbours(10**step, token, nearest) for token in tokens for step in range(steps)]
        draw_neighbours(found, [file], LONG)

    return draw


def positions(kinds: list[str], count: int = 64) -> Callable[[Path], None]:
    def draw(file: Path) -> None:
        import numpy as np

        from training.model_io.embeddings import Positions
        from training.plots.embeddings import draw_positions

        waves = np.sin(np.arange(count)[:, None] / 2.0 ** np.arange(8))
        draw_positions([Positions(kind, waves) for kind in kinds], [file], ODD)

    return draw


THREE = ["base", "sft", "dpo"]
SIX = ["base", "sft", "reward", "dpo", "kto", "orpo"]
CASES: dict[str, Callable[[Path], None]] = {
    "confusion_2": confusion(["ham", "spam"], texts=500),
    "confusion_5": confusion(names(5)),
    "confusion_20_long": confusion(names(20, long=True)),
    "confusion_77": confusion(names(77)),
    "confusion_77_long": confusion([ODD, *names(76, long=True)]),
    "confusion_77_perfect": confusion(names(77), right=2.0),
    "confusion_1000": confusion(names(1000), missing=500),
    "confusion_missing": confusion(names(3), missing=1),
    "loss": losses(curve(400, 100)),
    "loss_tokens": losses(curve(400, 100), "1.1M parameters", "tokens"),
    "loss_one_step": losses(curve(1)),
    "loss_not_finite": losses(NOT_FINITE, ODD),
    "loss_validation_only": losses([{"step": 3, "validation_loss": 2.0}], LONG),
    "runs_1": runs({"run": curve(300, 50)}),
    "runs_2_remark": runs({LONG: curve(300, 50), ODD: curve(200, 50, 3.0)}, remarks=(REMARK, REMARK)),
    "runs_12": runs({f"run {number}": curve(300, 50, 2 + 0.02 * number) for number in range(12)}),
    "runs_40": runs({f"run {number}": curve(300, 50, 2 + 0.02 * number) for number in range(40)}),
    "runs_one_step": runs({"a": curve(1), "b": curve(1, loss=3.0)}),
    "runs_not_finite": runs({"a": NOT_FINITE, "b": curve(3)}),
    "runs_rate": runs({"a": curve(90)}, "tokens_per_second"),
    "reward": reward(60),
    "reward_one_step": reward(1),
    "reward_not_finite": reward(5, kl=math.nan),
    "reward_nothing": reward(1, reward=math.nan),
    "reward_outlier": reward(60, kl=40.0),
    "funnel": funnel(9),
    "funnel_long": funnel(14, long=True),
    "funnel_nothing_dropped": funnel(0, documents=1, copies=False),
    "summary": summary(THREE, ["functions", "preference", "body_choice", "docstring_choice"], 400),
    "summary_one": summary(["base"], ["quiz"], 1),
    "summary_not_finite": summary(THREE, ["quiz", "arc"], 4, quiz=math.nan),
    "summary_bits": summary(THREE, [], 0),
    "summary_many": summary(SIX, names(14), 400),
    "summary_long": summary(names(4, long=True), names(9, long=True), 400),
    "summary_57": summary(["base"], names(57), 0, bits=False),
    "comparison": comparison(THREE, ["quiz", "arc", "piqa", "books"]),
    "comparison_one": comparison(THREE[:2], ["quiz"], stderr=None),
    "comparison_not_finite": comparison(THREE, ["quiz"], stderr=math.nan, quiz=math.nan),
    "comparison_long": comparison(names(4, long=True), names(6, long=True)),
    "comparison_57": comparison(SIX, names(57)),
    "merges": merges("the cat sat under another table"),
    "merges_long": merges("another table " * 60 + "under" * 30),
    "neighbours": neighbours(["def", "·if"], 3),
    "neighbours_many": neighbours([ODD, *names(5, long=True)], 30),
    "positions": positions(["learned", "sinusoidal", "rope"]),
    "positions_two": positions(["learned"], 2),
    "leaderboard": leaderboard(THREE, 9),
    "leaderboard_long": leaderboard([ODD, *names(5, long=True)], 9),
    "leaderboard_30": leaderboard(names(30), 9),
    "leaderboard_no_history": leaderboard(THREE[:2], 0),
    "phases": phases(4, 2, [0, 1, 2, 4, 8, 16, 32, 64]),
    "phases_many": phases(12, 12, [64, 100]),
    "phases_no_held_out": phases(2, 2, [1, 2], held_out=False, expected=None),
    "frames": frames([0, 1, 2, 4, 8, 16, 32, 64]),
    "frames_two": frames([1, 2]),
    "moment": frames([1], held_out=False),
    "ablation": ablation(4, 2),
    "ablation_many": ablation(48, 25),
    "ablation_one": ablation(1, 1, held_out=False),
}  # fmt: skip


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    folder, *wanted = sys.argv[1:]
    for case in wanted or CASES:
        started = time.perf_counter()
        file = Path(folder, f"{case}.png")
        CASES[case](file)
        size = file.stat().st_size if file.is_file() else 0
        print(f"{case}: {time.perf_counter() - started:.2f} s, {size:,} bytes", flush=True)
