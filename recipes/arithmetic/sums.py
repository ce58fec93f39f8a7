"""Sums to learn from, without downloads: python recipes/arithmetic/sums.py [--output_dir FOLDER] [--seed N]

Addition and subtraction of two numbers of one to three digits. Writes, in runs/arithmetic/sums:
    text.txt      200,000 plain sums, for the tokenizer and the base model
    sft.jsonl     500 questions with answers to learn from
    grpo.jsonl    5,000 questions with what an answer is checked against
    test.jsonl    1,000 questions whose two numbers stand together in none of the others, in either order
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


def draw_sums(draw: random.Random, number: int, held_out: bool = False) -> list[tuple[str, str]]:
    """So many sums of one side of the split, each the question up to the equals sign and the answer. Those that are
    held out differ from one another."""
    sums: list[tuple[str, str]] = []
    seen = set()
    while len(sums) < number:
        first, sign, second = drawn = draw_sum(draw)
        if is_held_out(first, second) == held_out and drawn not in seen:
            sums.append((f"{first} {sign} {second} =", str(first + second if sign == "+" else first - second)))
            seen |= {drawn} if held_out else set()
    return sums


def record(question: str, answer: str) -> dict[str, object]:
    """What SFT reads (prompt, completion), and what a reward checks (answer, pattern)."""
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
        "answer": answer,
        "pattern": PATTERN,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/arithmetic/sums"), metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, folder = random.Random(options.seed), options.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{question} {answer}\n" for question, answer in draw_sums(draw, 200_000)]
    (folder / "text.txt").write_text("".join(lines), encoding="utf-8")
    for name, number in {"sft": 500, "grpo": 5_000, "test": 1_000}.items():
        records = [record(*pair) for pair in draw_sums(draw, number, held_out=name == "test")]
        text = "".join(json.dumps(one) + "\n" for one in records)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    print(f"wrote text.txt, sft.jsonl, grpo.jsonl and test.jsonl in {folder}; next: scratch run recipes/arithmetic")


if __name__ == "__main__":
    main()
