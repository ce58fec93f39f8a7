"""Tuning data of recipes/assistant: python recipes/assistant/data.py

Reads Databricks' Dolly (15,000 instructions by people, without those that come with a text to read) and the 1,100
instructions of S. Raschka's book "Build a Large Language Model (From Scratch)". Each of these has a second answer, more
polite or less. Writes to runs/assistant/tuning:
    instructions.jsonl             questions with answers, for SFT (prompt, completion)
    pairs/train.jsonl              the book's questions with two answers, for the reward model and DPO (prompt, chosen,
                                   rejected)
    book_test.jsonl, dolly_test.jsonl, pairs/test.jsonl
                                   held out: a quarter of the book's questions, a twentieth of Dolly's
Questions are held out by their hash, so that the same ones are held out of instructions and pairs.
"""

import argparse
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datasets import load_dataset

from training.tuning.dataset_formats import pair, preference

DOLLY = "databricks/databricks-dolly-15k"
BOOK = (
    "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/ch07/04_preference-tuning-with-dpo/"
    "instruction-data-with-preference.json"
)
HELD_OUT = {"book": 0.25, "dolly": 0.05}  # fraction of the questions


def read(source: str) -> Iterable[dict[str, Any]]:
    """The records of a local JSON file, a URL of one, or a data set on the Hub."""
    if source.endswith((".json", ".jsonl")):
        return load_dataset("json", data_files=source, split="train")
    return load_dataset(source, split="train")


def is_held_out(record: dict[str, Any], fraction: float) -> bool:
    """Whether a question belongs to the test split: the fraction with the lowest hashes, the same in every file."""
    (message,) = record["prompt"]
    return int.from_bytes(hashlib.sha256(message["content"].encode()).digest()[:8]) < fraction * 2**64


def length(record: dict[str, Any]) -> int:
    """The number of characters in all messages."""
    return sum(len(message["content"]) for messages in record.values() for message in messages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dolly", default=DOLLY, help="data set on the Hub, or a file of its records [%(default)s]")
    parser.add_argument("--book", default=BOOK, help="instruction-data-with-preference.json [%(default)s]")
    parser.add_argument("--max_characters", type=int, default=600, help="of an instruction with its answer [600]")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/assistant/tuning"), help="[%(default)s]")
    options = parser.parse_args()

    book = list(read(options.book))
    dolly = [record for record in read(options.dolly) if not record.get("context")]
    kinds = {
        "dolly": map(pair("instruction", "response"), dolly),
        "book": map(pair("instruction", "output", "input"), book),
    }
    files: dict[str, list] = {}
    for kind, records in kinds.items():
        for record in records:
            if length(record) <= options.max_characters:
                name = f"{kind}_test" if is_held_out(record, HELD_OUT[kind]) else "instructions"
                files.setdefault(name, []).append(record)
    for record in map(preference, book):
        name = "pairs/test" if is_held_out(record, HELD_OUT["book"]) else "pairs/train"
        files.setdefault(name, []).append(record)

    (options.output_dir / "pairs").mkdir(parents=True, exist_ok=True)
    for name, records in files.items():
        file = options.output_dir / f"{name}.jsonl"
        with file.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        print(f"{file}: {len(records):,} records")


if __name__ == "__main__":
    main()
