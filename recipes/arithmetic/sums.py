"""Data of recipes/arithmetic, without downloads: python recipes/arithmetic/sums.py [--output_dir FOLDER] [--seed N]

Sums add and subtract numbers of one or two digits. Half of the answers to three numbers give the result directly
(`12 - 45 + 7 = -26`), half work it out first (`12 - 45 + 7 = -33 + 7 = -26`). Writes to runs/arithmetic/sums:
    text.txt      150,000 lines, a third of them with two numbers, for the tokenizer and the base model
    sft.jsonl     1,000 questions of three numbers with answers, for SFT
    grpo.jsonl    5,000 questions with their results, for GRPO
    test.jsonl    1,000 questions whose three numbers occur together in none of these files, in any order
    test.txt      2,000 lines of such sums, to measure what tuning costs
"""

import argparse
import json
import random
import zlib
from pathlib import Path

# The result, or one step of working and the result: the pattern of the reward `format`.
PATTERN = r"-?\d+( [+-] \d+ = -?\d+)?"
HELD_OUT = 20  # one in 20 sets of three numbers is held out


def draw_sum(draw: random.Random, count: int) -> tuple[str, str, str]:
    """A random sum.

    Args:
        count: of its numbers.

    Returns:
        The question up to the equals sign, the working after its first two numbers, and the result.
    """
    numbers = [draw.randrange(10 ** draw.randint(1, 2)) for _ in range(count)]
    signs = [draw.choice("+-") for _ in numbers[1:]]
    totals = numbers[:1]
    for sign, number in zip(signs, numbers[1:]):
        totals.append(totals[-1] + number if sign == "+" else totals[-1] - number)
    terms = [f" {sign} {number}" for sign, number in zip(signs, numbers[1:])]
    return f"{numbers[0]}{''.join(terms)} =", f"{totals[1]}{''.join(terms[1:])} =", str(totals[-1])


def is_held_out(question: str) -> bool:
    """Whether a question of three numbers is for the test. It depends on the numbers, not on order, signs or seed."""
    numbers = sorted(question.split()[::2])
    return len(numbers) == 3 and zlib.crc32(" ".join(numbers).encode()) % HELD_OUT == 0


def draw_answered(draw: random.Random, count: int, held_out: bool = False) -> tuple[str, str, str]:
    """A question on one side of the split, an answer (direct or worked), and the result."""
    while True:
        question, working, result = draw_sum(draw, count)
        if is_held_out(question) == held_out:
            return question, f"{working} {result}" if count > 2 and draw.random() < 0.5 else result, result


def record(question: str, answer: str, result: str) -> dict[str, object]:
    """A record with the columns of SFT (prompt, completion) and of the rewards (answer, pattern)."""
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
        "answer": result,
        "pattern": PATTERN,
    }


def write_lines(file: Path, drawn: list[tuple[str, str, str]]) -> None:
    """Write sums as plain text, one per line."""
    file.write_text("".join(f"{question} {answer}\n" for question, answer, _ in drawn), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/arithmetic/sums"), metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, folder = random.Random(options.seed), options.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "text.txt", [draw_answered(draw, draw.choice((2, 3, 3))) for _ in range(150_000)])
    for name, number in {"sft": 1_000, "grpo": 5_000, "test": 1_000}.items():
        records: dict[str, dict[str, object]] = {}  # by question, so that none comes twice
        while len(records) < number:
            drawn = draw_answered(draw, 3, held_out=name == "test")
            records[drawn[0]] = record(*drawn)
        text = "".join(json.dumps(one) + "\n" for one in records.values())
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    write_lines(folder / "test.txt", [draw_answered(draw, 3, held_out=True) for _ in range(2_000)])
    names = ", ".join(sorted(file.name for file in folder.iterdir()))
    print(f"wrote {names} in {folder}; next: scratch run recipes/arithmetic")


if __name__ == "__main__":
    main()
