"""Data of recipes/induction, without downloads: python recipes/induction/blocks.py [--output_dir FOLDER] [--seed N]

Random symbols that can be predicted only by copying: a block of 16 to 32 different symbols, repeated until the document
has 63. Blocks of different lengths, so that no fixed distance leads to the earlier occurrence. With the token that ends
a document, each is one sequence of 64 tokens. Writes to runs/induction/blocks:
    text.jsonl    34,000 documents
"""

import argparse
import json
import random
import string
from pathlib import Path

SYMBOLS = string.ascii_letters + string.digits + "+-"  # 64
LENGTH = 63  # symbols of a document
SHORTEST, LONGEST = 16, 32  # symbols of a block


def draw_document(draw: random.Random) -> str:
    """A random block, repeated; the last repetition is cut."""
    block = "".join(draw.sample(SYMBOLS, draw.randint(SHORTEST, LONGEST)))
    return (block * (LENGTH // SHORTEST + 1))[:LENGTH]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/induction/blocks"), metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, folder = random.Random(options.seed), options.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"text": draw_document(draw)}) + "\n" for _ in range(34_000))
    (folder / "text.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"wrote text.jsonl in {folder}; next: scratch run recipes/induction")


if __name__ == "__main__":
    main()
