"""What was done to a corpus, to look at: which documents each rule dropped, what was mended or replaced in others."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from training.data.curation import CONTAMINATED, NEAR_DUPLICATES, Curation

DROPPED = "dropped.jsonl"
SHOWN = 100  # documents of each reason that are kept to be shown
_WIDTH = 300  # characters of a document on the screen


def write_evidence(curation: Curation, folder: Path) -> dict[str, Any]:
    """Samples of dropped documents, and the lists of near duplicates and contaminated documents, into a folder.

    Returns:
        How many texts each cleaning step mended, and how often each kind of personal data was replaced.
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
    for name in (NEAR_DUPLICATES, CONTAMINATED):
        if (curation.folder / name).exists():
            shutil.move(curation.folder / name, folder / name)
    return {"mended": dict(sorted(mended.items())), "redacted": dict(sorted(redacted.items()))}


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
