"""What was done to a corpus, to look at: which documents each rule dropped, what was mended or replaced in others."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from training.corpus.curation.corpus import Corpus
from training.corpus.curation.curation import NEAR_DUPLICATES, Curation

DROPPED, CONTAMINATED = "dropped.jsonl", "contaminated.jsonl"
SHOWN = 100  # documents of each reason that are kept to be shown
_WIDTH = 300  # characters of a document on the screen


def write_evidence(curation: Curation, folder: Path) -> dict[str, Any]:
    """Samples of dropped documents, and the list of near duplicates, into a folder.

    Returns:
        How many texts each cleaning step mended, and how often each kind of personal data was replaced; how many were
        read from each encoding that is not UTF-8.
    """
    counts, mended, redacted = Counter(), Counter(), Counter()
    with (folder / DROPPED).open("w", encoding="utf-8") as stream:

        def keep(reason: str, samples: list[dict[str, str]]) -> None:
            for sample in samples[: SHOWN - counts[reason]]:
                stream.write(json.dumps({"reason": reason} | sample, ensure_ascii=False) + "\n")
                counts[reason] += 1

        for record in curation.records():
            mended.update(record["mended"])
            redacted.update(record["redacted"])
            for reason, samples in record["samples"].items():
                keep(reason, samples)
        for reason, sample in curation.samples():
            keep(reason, [sample])
    if (curation.folder / NEAR_DUPLICATES).exists():
        shutil.move(curation.folder / NEAR_DUPLICATES, folder / NEAR_DUPLICATES)
    notes = {"mended": mended, "redacted": redacted, "encodings": curation.encodings()}
    return {name: dict(sorted(counts.items())) for name, counts in notes.items()}


def write_contaminated(corpus: Corpus, folder: Path) -> None:
    """The list of documents that met an evaluation item, into a folder."""
    with (folder / CONTAMINATED).open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in corpus.contaminated)


def explain(folder: Path, count: int) -> str:
    """The first documents that each rule dropped, with what condemned them."""
    shown, lines = Counter(), []
    with (folder / DROPPED).open(encoding="utf-8") as stream:
        samples = sorted(map(json.loads, stream), key=lambda sample: sample["reason"])
    for sample in samples:
        if shown[sample["reason"]] < count:
            text = " ".join(sample["text"][:_WIDTH].split())
            lines += [f"{sample['why']}\n    {sample['id']}: {text}"]
        shown[sample["reason"]] += 1
    return "\n".join(lines) or "no rule dropped a document"
