"""What is done to each document by itself."""

from collections import Counter
from typing import Any

import numpy as np

from training.corpus.curation.blocks import Block, BlockStore
from training.corpus.curation.config import DataConfig
from training.corpus.curation.funnel import Funnel
from training.corpus.curation.splitting import split_key
from training.corpus.dedup.exact import as_array, content_hash
from training.corpus.dedup.lines import line_hashes
from training.corpus.dedup.minhash import signature
from training.corpus.rules import Rules
from training.corpus.rules.cleaning import Cleaner
from training.corpus.rules.pii import Redactor
from training.corpus.sources import Document

SAMPLES = 3  # dropped documents of each reason that a block keeps, to show them
SAMPLE_CHARACTERS = 1_000


class Steps:
    """Cleaning, rules and hashes of a recipe.

    Attributes:
        clean, rules: of each source, by its name.

    Raises:
        UserError: one of them needs a file or a package that is not there.
    """

    def __init__(self, config: DataConfig):
        self.config = config
        self.clean = {name: Cleaner(config.cleaning_of(name)) for name in config.named_sources}
        self.rules = {name: Rules(config.rules_of(name)) for name in config.named_sources}
        self.redact = Redactor(config.pii)
        self.decontaminator = config.decontamination.evaluation and config.decontamination.decontaminator()

    def arrays(self, documents: list[Document]) -> dict[str, np.ndarray]:
        """What the later passes know of documents, a row for each."""
        texts = [document.text for document in documents]
        seed, dedup = self.config.seed, self.config.dedup
        arrays = {
            "sizes": np.array([document.size for document in documents], dtype=np.int64),
            "hashes": as_array([content_hash(text) for text in texts]),
            "document": np.array([split_key(seed, document.id) for document in documents], dtype=np.uint64),
            "package": np.array([split_key(seed, document.group) for document in documents], dtype=np.uint64),
        }
        if dedup.near:
            arrays["signatures"] = signature(texts, dedup.minhash)
        if dedup.lines:
            arrays |= ragged("lines", [line_hashes(text, dedup.line) for text in texts], np.uint64)
        if self.decontaminator:
            arrays |= ragged("matches", [self.decontaminator.matches(text) for text in texts], np.int64)
        return arrays


def ragged(name: str, rows: list[np.ndarray], dtype: type) -> dict[str, np.ndarray]:
    """Rows of different lengths: all of them in a row, and how long each is."""
    whole = np.concatenate(rows) if rows else np.empty(0)
    return {name: whole.astype(dtype), f"{name}_of_each": np.array([len(row) for row in rows], dtype=np.int64)}


def curate_block(steps: Steps, task: tuple[BlockStore, Block]) -> dict[str, Any]:
    """Write a block to its store, unless it is there; returns its record.

    The record: how many documents `passed`; the `position` in the source after them; the `funnel`; `mended` and
    `redacted`, how often each kind of cleaning and of personal data was met; `samples` of what was dropped, by reason.
    """
    store, block = task
    if block.number in store:
        return store.block(block.number).record()
    funnel, passed, mended, redacted, samples = Funnel(block.reading), [], Counter(), Counter(), {}
    for document in block.documents:
        text, repairs = steps.clean[block.source](document.text)
        rejection = steps.rules[block.source].judge(text) if text.strip() else "nothing left"
        if rejection:
            reason = getattr(rejection, "rule", rejection)
            funnel.drop(reason, document.size)
            of_reason = samples.setdefault(reason, [])
            if len(of_reason) < SAMPLES:
                # They are shown and published, so they keep to what the recipe says of personal data.
                why, shown = (steps.redact(part).text for part in (str(rejection), text))
                of_reason.append({"id": document.id, "why": why, "text": shown[:SAMPLE_CHARACTERS]})
            continue
        text, replaced = steps.redact(text)
        mended.update(repairs)
        redacted.update(replaced)
        clean = Document(document.id, document.group, text)
        funnel.keep(clean.size)
        funnel.trim("cleaning", document.size - clean.size)
        passed.append(clean)
    record = {
        "position": block.position,
        "passed": len(passed),
        "funnel": funnel.as_dict(),
        "mended": mended,
        "redacted": redacted,
        "samples": samples,
    }
    store.write(block.number, passed, steps.arrays(passed), record)
    return record
