"""datatrove's turn in `benchmarks.data`: run by the interpreter that has datatrove, and importing nothing of ours.

python -P benchmarks/data_datatrove.py documents.jsonl tokenizer.json results.json

Every step is a pipeline of its own over all documents, from memory, in one process.
"""

import json
import os
import sys
import tempfile
import time

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.tokens import DocumentTokenizer
from loguru import logger


def run(pipeline: list, tasks: int = 1) -> None:
    with tempfile.TemporaryDirectory() as logs:
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=logs).run()


class Source:
    """The documents as a pipeline's first step; copied by reference, as the executor copies its steps."""

    def __init__(self, texts: list[str]):
        self.texts = texts

    def __call__(self, data, rank: int = 0, world_size: int = 1):
        return (Document(text, str(number)) for number, text in enumerate(self.texts))

    def __deepcopy__(self, memo):
        return self


class Survivors:
    """The numbers of the documents that reach a pipeline's end."""

    def __init__(self):
        self.numbers = []

    def __call__(self, data, rank: int = 0, world_size: int = 1):
        for document in data:
            self.numbers.append(int(document.id))
            yield document

    def __deepcopy__(self, memo):
        return self


def filters() -> list:
    """The rules on whole documents; C4's rules on single lines are off."""
    on_lines = {"filter_no_terminal_punct": False, "filter_javascript": False, "filter_policy": False}
    on_lines |= {"remove_citations": False, "min_words_per_line": -1, "max_word_length": -1}
    return [GopherQualityFilter(), C4QualityFilter(**on_lines), GopherRepetitionFilter()]


def deduplicate(source: Source, folder: str) -> list[int]:
    config, survivors = MinhashConfig(), Survivors()
    run([source, MinhashDedupSignature(f"{folder}/signatures", config)])
    run([MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/pairs", config=config)], tasks=config.num_buckets)
    run([MinhashDedupCluster(f"{folder}/pairs", f"{folder}/removed", config=config)])
    run([source, MinhashDedupFilter(f"{folder}/removed"), survivors])
    return survivors.numbers


def work(texts: list[str], tokenizer: str) -> dict:
    source, survivors, taken = Source(texts), Survivors(), {}
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run([source, *filters(), survivors])
        taken["filter"] = time.process_time() - start

        start = time.process_time()
        distinct = deduplicate(source, folder)
        taken["near duplicates"] = time.process_time() - start

        start = time.process_time()
        run([source, DocumentTokenizer(f"{folder}/tokens", tokenizer, shuffle_documents=False)])
        taken["tokenize"] = time.process_time() - start
        files = [entry for entry in os.scandir(f"{folder}/tokens") if entry.name.endswith(".ds")]
        tokens = sum(entry.stat().st_size for entry in files) // 2
    return {"seconds": taken, "passed": survivors.numbers, "distinct": distinct, "tokens": tokens}


def main() -> None:
    documents, tokenizer, results = sys.argv[1:]
    logger.remove()
    with open(documents, encoding="utf-8") as stream:
        texts = [json.loads(line) for line in stream]
    work(texts[:2], tokenizer)  # loads models and code
    with open(results, "w") as stream:
        json.dump(work(texts, tokenizer), stream)


if __name__ == "__main__":
    main()
