"""The audit of a corpus: samples of the documents that each rule dropped, and counts of cleaned and replaced text."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from training.corpus.curation.corpus import Corpus
from training.corpus.curation.curation import NEAR_DUPLICATES

DROPPED, CONTAMINATED = "dropped.jsonl", "contaminated.jsonl"
SHOWN = 100  # documents of each reason that dropped.jsonl keeps
_WIDTH = 300  # characters of a document shown on the terminal


def write_audit(corpus: Corpus, folder: Path) -> dict[str, Any]:
    """Write samples of dropped documents, and the list of near duplicates, into a folder.

    Returns:
        For the manifest: `cleaned`, how often each cleaning step applied; `redacted`, how often each kind of personal
        data was replaced; `encodings`, documents read from each encoding other than UTF-8.
    """
    counts, cleaned, redacted = Counter(), Counter(), Counter()
    with (folder / DROPPED).open("w", encoding="utf-8") as stream:

        def keep(reason: str, samples: list[dict[str, str]]) -> None:
            for sample in samples[: SHOWN - counts[reason]]:
                stream.write(json.dumps({"reason": reason} | sample, ensure_ascii=False) + "\n")
                counts[reason] += 1

        for record in corpus.records():
            cleaned.update(record["cleaned"])
            redacted.update(record["redacted"])
            for reason, samples in record["samples"].items():
                keep(reason, samples)
        for reason, sample in corpus.samples():
            keep(reason, [sample])
    if (corpus.folder / NEAR_DUPLICATES).exists():
        shutil.move(corpus.folder / NEAR_DUPLICATES, folder / NEAR_DUPLICATES)
    notes = {"cleaned": cleaned, "redacted": redacted, "encodings": corpus.encodings()}
    return {name: dict(sorted(counts.items())) for name, counts in notes.items()}


def write_contaminated(corpus: Corpus, folder: Path) -> None:
    """Write the list of documents that met an evaluation item into a folder."""
    with (folder / CONTAMINATED).open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in corpus.contaminated)


def explain(folder: Path, count: int) -> str:
    """The first documents that each rule dropped, with the value that was out of bounds."""
    shown, lines = Counter(), []
    with (folder / DROPPED).open(encoding="utf-8") as stream:
        samples = sorted(map(json.loads, stream), key=lambda sample: sample["reason"])
    for sample in samples:
        if shown[sample["reason"]] < count:
            text = " ".join(sample["text"][:_WIDTH].split())
            lines += [f"{sample['why']}\n    {sample['id']}: {text}"]
        shown[sample["reason"]] += 1
    return "\n".join(lines) or "no rule dropped a document"
