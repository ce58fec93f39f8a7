"""Sums to learn from, without downloads: python recipes/arithmetic/sums.py [--output_dir FOLDER] [--seed N]

Addition and subtraction of two numbers of one to three digits. Writes, in runs/arithmetic/sums:
    text.txt      200,000 plain sums, for the tokenizer and the base model
    train.jsonl   10,000 questions with their answers, for SFT (prompt, completion) and GRPO (prompt, answer, pattern)
    test.jsonl    1,000 questions whose two numbers, in either order, stand together in neither of the others
"""

import argparse
import json
import random
import zlib
from pathlib import Path

PATTERN = r"-?\d+"
HELD_OUT = 20  # one pair of numbers in so many


def draw_sum(draw: random.Random) -> tuple[int, str, int]:
    """Two numbers, each of one to three digits with the same chance, and what is done with them."""
    first, second = (draw.randrange(10 ** draw.randint(1, 3)) for _ in range(2))
    return first, draw.choice("+-"), second


def is_held_out(first: int, second: int) -> bool:
    """Whether a pair of numbers belongs to the test: the same in every run, whatever the seed."""
    low, high = sorted((first, second))
    return zlib.crc32(f"{low} {high}".encode()) % HELD_OUT == 0


def draw_sums(draw: random.Random, number: int, held_out: bool, distinct: bool = False) -> list[tuple[str, str]]:
    """So many sums of one side of the split: the question, up to the equals sign, and the answer."""
    sums = []
    seen = set()
    while len(sums) < number:
        first, sign, second = drawn = draw_sum(draw)
        if is_held_out(first, second) == held_out and drawn not in seen:
            sums.append((f"{first} {sign} {second} =", str(first + second if sign == "+" else first - second)))
            if distinct:
                seen.add(drawn)
    return sums


def record(question: str, answer: str) -> dict[str, object]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
        "answer": answer,
        "pattern": PATTERN,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/arithmetic/sums"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    folder = options.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    text = draw_sums(draw, 200_000, held_out=False)
    (folder / "text.txt").write_text("".join(f"{question} {answer}\n" for question, answer in text))
    for name, number, held_out in (("train", 10_000, False), ("test", 1_000, True)):
        records = [record(*pair) for pair in draw_sums(draw, number, held_out, distinct=True)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
    print(f"wrote text.txt, train.jsonl and test.jsonl in {folder}; next: scratch run recipes/arithmetic")


if __name__ == "__main__":
    main()
