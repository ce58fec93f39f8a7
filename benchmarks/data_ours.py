"""Our turn in `benchmarks.data`, plainly in a loop or through `datasets.map`.

python -m benchmarks.data_ours (loop | map) documents.jsonl tokenizer.json results.json
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from training.corpus.dedup.exact import as_array, content_hash, first_of_each
from training.corpus.dedup.minhash import MinHashConfig, signature
from training.corpus.dedup.neighbours import near_duplicates
from training.corpus.rules import Rules, RulesConfig
from training.corpus.rules.gopher import QUALITY, REPETITION
from training.corpus.rules.web import C4

AT_ONCE = 1000  # documents


def rules() -> Rules:
    """Gopher's quality and repetition rules and C4's on whole documents, with the published limits."""
    return Rules(RulesConfig(limits={rule.name: True for rule in (*QUALITY, *C4, *REPETITION)}))


def distinct_documents(hashes: list[bytes], signatures: np.ndarray, config: MinHashConfig) -> list[int]:
    keep = first_of_each(as_array(hashes)) == np.arange(len(hashes))
    keep[near_duplicates(signatures, config).dropped] = False
    return np.flatnonzero(keep).tolist()


def batches(texts: list[str]) -> list[list[str]]:
    return [texts[start : start + AT_ONCE] for start in range(0, len(texts), AT_ONCE)]


def timed(step: Callable, *arguments) -> tuple[float, object]:
    start = time.process_time()
    result = step(*arguments)
    return time.process_time() - start, result


def work_in_loop(texts: list[str], tokenizer: Tokenizer) -> dict:
    def filtered() -> list[int]:
        check = rules().check
        return [number for number, text in enumerate(texts) if check(text) is None]

    def deduplicate() -> list[int]:
        config = MinHashConfig()
        hashes = [content_hash(text) for text in texts]
        return distinct_documents(hashes, np.concatenate([signature(b, config) for b in batches(texts)]), config)

    def tokenize(path: Path) -> int:
        with path.open("wb") as stream:
            for batch in batches(texts):
                for encoding in tokenizer.encode_batch_fast(batch):
                    stream.write(np.array(encoding.ids, np.uint16).tobytes())
        return path.stat().st_size // 2

    return run(filtered, deduplicate, tokenize)


def work_in_map(texts: list[str], tokenizer: Tokenizer) -> dict:
    import datasets

    datasets.disable_progress_bars()
    documents = datasets.Dataset.from_dict({"number": range(len(texts)), "text": texts})

    def filtered() -> list[int]:
        check = rules().check
        return documents.filter(lambda text: check(text) is None, input_columns="text")["number"][:]

    def deduplicate() -> list[int]:
        config = MinHashConfig()

        def hashed(texts: list[str]) -> dict:
            return {"hash": [content_hash(text) for text in texts], "signature": signature(texts, config)}

        columns = documents.map(
            hashed, input_columns="text", batched=True, batch_size=AT_ONCE, remove_columns=documents.column_names
        )
        signatures = columns.with_format("numpy", columns=["signature"])["signature"][:].astype(np.uint32)
        return distinct_documents(columns["hash"][:], signatures, config)

    def tokenize(path: Path) -> int:
        def encoded(texts: list[str]) -> dict:
            return {"ids": [np.array(encoding.ids, np.uint16) for encoding in tokenizer.encode_batch_fast(texts)]}

        columns = documents.map(
            encoded, input_columns="text", batched=True, batch_size=AT_ONCE, remove_columns=documents.column_names
        )
        columns.save_to_disk(path)
        return sum(len(chunk.values) for chunk in columns.data["ids"].chunks)

    return run(filtered, deduplicate, tokenize)


def run(filtered: Callable, deduplicate: Callable, tokenize: Callable) -> dict:
    taken = {}
    with tempfile.TemporaryDirectory() as folder:
        taken["filter"], passed = timed(filtered)
        taken["near duplicates"], distinct = timed(deduplicate)
        taken["tokenize"], tokens = timed(tokenize, Path(folder) / "tokens")
    return {"seconds": taken, "passed": passed, "distinct": distinct, "tokens": tokens}


def main() -> None:
    kind, documents, tokenizer, results = sys.argv[1:]
    work = {"loop": work_in_loop, "map": work_in_map}[kind]
    with open(documents, encoding="utf-8") as stream:
        texts = [json.loads(line) for line in stream]
    tokenizer = Tokenizer.from_file(tokenizer)
    work(texts[:2], tokenizer)  # loads code
    with open(results, "w") as stream:
        json.dump(work(texts, tokenizer), stream)


if __name__ == "__main__":
    main()
