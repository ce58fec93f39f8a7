"""The document pipeline: cleaning, rules, personal data and hashes, one document at a time."""

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

SAMPLES = 3  # dropped documents of each reason that a block keeps for the audit
SAMPLE_CHARACTERS = 1_000


class DocumentPipeline:
    """Cleaning, rules and hashes of a recipe.

    Attributes:
        clean, rules: by name of the source.

    Raises:
        UserError: a step needs a file or a package that is missing.
    """

    def __init__(self, config: DataConfig):
        self.config = config
        self.clean = {name: Cleaner(config.cleaning_of(name)) for name in config.named_sources}
        self.rules = {name: Rules(config.rules_of(name)) for name in config.named_sources}
        self.redact = Redactor(config.pii)
        self.decontaminator = config.decontamination.evaluation and config.decontamination.decontaminator()

    def arrays(self, documents: list[Document]) -> dict[str, np.ndarray]:
        """The arrays on which the later passes work: an entry for each document."""
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
    """Arrays of different lengths as one array, and the length of each."""
    whole = np.concatenate(rows) if rows else np.empty(0)
    return {name: whole.astype(dtype), f"{name}_of_each": np.array([len(row) for row in rows], dtype=np.int64)}


def process_block(pipeline: DocumentPipeline, task: tuple[BlockStore, Block]) -> dict[str, Any]:
    """Write a block to its store, unless it is there already.

    Returns:
        The block's record: how many documents `passed`; the `position` in the source after them and the bytes of
        `groups`; the `funnel`; `cleaned` and `redacted`, how often each cleaning step and each kind of personal data
        applied; `samples` of dropped documents, by reason.
    """
    store, block = task
    if block.number in store:
        return store.block(block.number).record()
    funnel, passed, cleaned, redacted, samples = Funnel(block.reading), [], Counter(), Counter(), {}
    for document in block.documents:
        text, counts = pipeline.clean[block.source](document.text)
        rejection = pipeline.rules[block.source].check(text) if text.strip() else "nothing left"
        if rejection:
            reason = getattr(rejection, "rule", rejection)
            funnel.drop(reason, document.size)
            of_reason = samples.setdefault(reason, [])
            if len(of_reason) < SAMPLES:
                # Samples are shown and published, so personal data is replaced in them as the recipe says.
                why, shown = (pipeline.redact(part).text for part in (str(rejection), text))
                of_reason.append({"id": document.id, "why": why, "text": shown[:SAMPLE_CHARACTERS]})
            continue
        text, replaced = pipeline.redact(text)
        cleaned.update(counts)
        redacted.update(replaced)
        clean = Document(document.id, document.group, text)
        funnel.keep(clean.size)
        funnel.trim("cleaning", document.size - clean.size)
        passed.append(clean)
    record = {
        "position": block.position,
        "groups": block.groups,
        "passed": len(passed),
        "funnel": funnel.as_dict(),
        "cleaned": cleaned,
        "redacted": redacted,
        "samples": samples,
    }
    store.write(block.number, passed, pipeline.arrays(passed), record)
    return record
