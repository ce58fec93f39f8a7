"""Questions with answers, and pairs of a polite and a rude answer, part of them held out: for the recipes beside this.

    python recipes/assistant/data.py

The instructions are Databricks' Dolly (people's; those that can be answered without a text to read from) and those of
S. Raschka's "Build a Large Language Model (From Scratch)", whose second answers, more polite or less, make the pairs. A
prompt is held out by its hash, so that what is held out of the instructions is held out of the pairs too, in whatever
order the files come. All files are of TRL's own shapes.
"""

import argparse
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datasets import load_dataset

from training.chat.shapes import pair, preference

DOLLY = "databricks/databricks-dolly-15k"
BOOK = (
    "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/ch07/04_preference-tuning-with-dpo/"
    "instruction-data-with-preference.json"
)
HELD_OUT = {"dolly": 0.05, "book": 0.25}  # the book's are few, and ask for the same few skills again and again


def read(source: str) -> Iterable[dict[str, Any]]:
    """Records of a JSON file, here or behind an address, or of a data set on the Hub."""
    if source.endswith((".json", ".jsonl")):
        return load_dataset("json", data_files=source, split="train")
    return load_dataset(source, split="train")


def is_held_out(record: dict[str, Any], share: float) -> bool:
    """Whether the record's prompt is in the part with the lowest hashes."""
    (message,) = record["prompt"]
    return int.from_bytes(hashlib.sha256(message["content"].encode()).digest()[:8]) < share * 2**64


def length(record: dict[str, Any]) -> int:
    """Characters of all messages."""
    return sum(len(message["content"]) for messages in record.values() for message in messages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dolly", default=DOLLY, help="a data set on the Hub, or a file of its records [%(default)s]")
    parser.add_argument("--book", default=BOOK, help="instruction-data-with-preference.json [%(default)s]")
    parser.add_argument("--max-characters", type=int, default=600, help="of an instruction and its answer [600]")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/assistant/tuning"), help="[%(default)s]")
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
