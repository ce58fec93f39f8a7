"""Arena ratings in simulation: how often 95 % intervals cover the known strength, and what the choice of pairs saves.

    python -m benchmarks.arena
    python -m benchmarks.arena --arenas 100 --choice_arenas 20

Coverage: arenas with known strengths, the same number of votes on every pair; the share of models whose interval
contains their strength, with the lowest and highest of the conditions. Correlated voters have their own taste: a
normal variable for each voter and model decides 30 % of the variance of a vote, and the mean of a pair stays as it is.

Choice of pairs: the mean error of the ranking, in rating points summed over the pairs in the wrong order, after some
votes on pairs that are drawn uniformly or by `next_pair`; and the votes that a uniform draw needs for the same error.
The last line is everything as JSON.
"""

import argparse
import itertools
import json
import math

import numpy as np
from tqdm import tqdm

from training.arena import matchmaking
from training.arena.matchmaking import next_pair
from training.arena.ratings import MEAN, POINTS, Floats, Votes, bradley_terry, expected_score

SPREAD = 150.0  # rating points: standard deviation of the strengths
TIES = 0.3  # share of ties among equal models, halved
TASTE = 0.3  # share of the variance of a vote that is its voter's taste, for correlated voters
CHECKPOINTS = (60, 120, 180, 240, 300)  # votes, at which the choice of pairs is compared
UNIFORM_VOTES = 600  # votes of the uniform draw, for the comparison

_normal = np.vectorize(lambda z: 0.5 * (1 + math.erf(z / math.sqrt(2))), otypes=[float])


def draw_strengths(models: int, spread: float, generator: np.random.Generator) -> Floats:
    """(models,) strengths of mean 0 with this spread, in rating points."""
    strengths = generator.normal(0, spread / POINTS, models)
    return strengths - strengths.mean()


def score_pairs(difference: Floats, draws: Floats, ties: float = TIES) -> Floats:
    """(votes,) scores by differences in strength and uniform draws. Their mean is the expected score, with ties too."""
    p = expected_score(difference)
    half_tie = 2 * p * (1 - p) * ties
    return np.where(draws < p - half_tie, 1.0, np.where(draws < p + half_tie, 0.5, 0.0))


def draw_votes(
    strengths: Floats, per_pair: int, voters: int, taste: float, generator: np.random.Generator, ties: float = TIES
) -> Votes:
    """Votes on every pair.

    Args:
        strengths: (models,).
        per_pair: votes on each pair.
        voters: number of voters, who vote on pairs at random.
        taste: share of the variance of a vote that is its voter's taste.
    """
    models = len(strengths)
    first, second = np.array(list(itertools.combinations(range(models), 2)) * per_pair).T
    voter = generator.integers(0, voters, len(first))
    tastes = generator.normal(size=(voters, models))
    own = (tastes[voter, second] - tastes[voter, first]) / math.sqrt(2)
    draws = _normal(math.sqrt(taste) * own + math.sqrt(1 - taste) * generator.normal(size=len(first)))
    return Votes(models, first, second, score_pairs(strengths[first] - strengths[second], draws, ties), voter)


def coverage(
    arenas: int,
    models: int,
    per_pair: int,
    voters: int = 3,
    taste: float = 0.0,
    spread: float = SPREAD,
    ties: float = TIES,
    seed: int = 0,
) -> dict[str, float]:
    """The share of intervals that contain the strength, and their mean half width in points."""
    generator = np.random.default_rng(seed)
    hits, widths = [], []
    for _ in range(arenas):
        strengths = draw_strengths(models, spread, generator)
        found = bradley_terry(draw_votes(strengths, per_pair, voters, taste, generator, ties))
        hits.append(np.abs(found.ratings - MEAN - POINTS * strengths) <= found.half_widths)
        widths.append(found.half_widths)
    return {"coverage": float(np.mean(hits)), "half_width": float(np.mean(widths))}


def ranking_error(strengths: Floats, found: Floats) -> float:
    """Rating points between the models of every pair that is in the wrong order, summed."""
    true, seen = (values[:, None] - values[None, :] for values in (strengths, found))
    return float(POINTS * (np.abs(true) * (true * seen <= 0)).sum() / 2)


def follow_arena(
    models: int, marks: tuple[int, ...], uniform: bool, generator: np.random.Generator
) -> tuple[list[float], float]:
    """Ranking errors of one arena after some numbers of votes, and the coverage of its intervals in the end."""
    strengths = draw_strengths(models, SPREAD, generator)
    first, second = (np.zeros(marks[-1], dtype=np.int64) for _ in range(2))
    score, voter, errors = np.zeros(marks[-1]), np.zeros(marks[-1], dtype=np.int64), []
    found = bradley_terry(Votes(models, first[:0], second[:0], score[:0], voter[:0]))
    for place in range(marks[-1]):
        pair = generator.choice(models, 2, replace=False) if uniform else next_pair(found, [], generator)
        first[place], second[place] = pair
        score[place] = score_pairs(strengths[[pair[0]]] - strengths[[pair[1]]], generator.random(1))[0]
        count = place + 1
        if count in marks or not uniform:
            found = bradley_terry(Votes(models, first[:count], second[:count], score[:count], voter[:count]))
        if count in marks:
            errors.append(ranking_error(strengths, found.strengths))
    return errors, float(np.mean(np.abs(found.ratings - MEAN - POINTS * strengths) <= found.half_widths))


def compare_choices(
    arenas: int,
    models: int,
    checkpoints: tuple[int, ...] = CHECKPOINTS,
    uniform_votes: int = UNIFORM_VOTES,
    seed: int = 0,
) -> dict[str, object]:
    """Ranking errors of both draws, the votes that a uniform draw needs for the same error, and the coverage."""
    marks = tuple(range(20, uniform_votes + 1, 20))
    rounds = {
        "uniform": [follow_arena(models, marks, True, np.random.default_rng([seed, n])) for n in range(3 * arenas)],
        "chosen": [
            follow_arena(models, checkpoints, False, np.random.default_rng([seed, n]))
            for n in tqdm(range(arenas), unit="arena")
        ],
    }
    uniform, chosen = (np.mean([errors for errors, _ in each], axis=0) for each in rounds.values())
    falling = np.minimum.accumulate(uniform)
    needed = np.interp(-np.log(chosen), -np.log(falling), marks)
    return {
        "votes": checkpoints,
        "error": chosen.tolist(),
        "error_uniform": np.interp(checkpoints, marks, uniform).tolist(),
        "votes_uniform": needed.tolist(),
        "saving": (1 - np.array(checkpoints) / needed).tolist(),
        "coverage": float(np.mean([covered for _, covered in rounds["chosen"]])),
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arenas", type=int, default=1000, help="arenas for each condition of the coverage")
    parser.add_argument("--choice_arenas", type=int, default=100, help="arenas for the choice of pairs")
    parser.add_argument("--sharpness", type=float, default=matchmaking.SHARPNESS, help="of the choice of pairs")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    covered = []
    print("| models | votes a pair | voters | taste | ties | spread | coverage | half width |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    voters = [(3, 0.0), (20, 0.0), (20, TASTE), (50, TASTE)]
    for models, per_pair, (people, taste) in itertools.product((2, 4, 8), (20, 100), voters):
        for ties, spread in ((TIES, SPREAD), *([(0.0, SPREAD), (TIES, 300.0)] if people == 3 else [])):
            condition = {"models": models, "per_pair": per_pair, "voters": people, "taste": taste}
            condition |= {"ties": ties, "spread": spread}
            found = coverage(arguments.arenas, seed=arguments.seed, **condition)
            covered.append(condition | found)
            cells = [*condition.values(), f"{found['coverage']:.1%}", f"{found['half_width']:.0f}"]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
    shares = [each["coverage"] for each in covered]
    print(f"\ncoverage: {min(shares):.1%} to {max(shares):.1%}, mean {np.mean(shares):.1%}\n")
    matchmaking.SHARPNESS = arguments.sharpness
    saved = compare_choices(arguments.choice_arenas, 8, seed=arguments.seed)
    print("| votes | error | error, uniform | votes for this error, uniform | saving |\n|---:|---:|---:|---:|---:|")
    rows = zip(*(saved[key] for key in ("votes", "error", "error_uniform", "votes_uniform", "saving")), strict=True)
    for votes, error, error_uniform, needed, saving in rows:
        print(f"| {votes} | {error:.0f} | {error_uniform:.0f} | {needed:.0f} | {saving:.0%} |")
    print(f"\ncoverage with chosen pairs: {saved['coverage']:.1%}\n")
    print(json.dumps({"benchmark": "arena", "conditions": vars(arguments), "coverage": covered, "choice": saved}))


if __name__ == "__main__":
    main()
