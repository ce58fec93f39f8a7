"""Shards of a corpus and their manifest: both splits as tokens, the mixture, and the counts of every step."""

from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.corpus.curation.config import DataConfig
from training.corpus.curation.corpus import Corpus
from training.corpus.curation.splitting import SPLITS
from training.corpus.output.audit import write_audit, write_contaminated
from training.corpus.output.card import label
from training.corpus.output.encoding import Encoder, Writer, describe_shares, write_mixture
from training.corpus.output.histogram import by_powers_of_two
from training.data.shards import write_manifest


def check_sources_left(corpus: Corpus) -> None:
    """Check that every source has training text left.

    Raises:
        UserError: names the source, and the reasons for which documents were dropped.
    """
    for name in corpus.config.sources:
        if not corpus.size("train", name):
            reasons = corpus.funnel.reasons() or "it is empty"
            raise UserError(
                f"'{corpus.config.key_of(name)}': no training text left; dropped from all sources: {reasons}"
            )


def write_shards(corpus: Corpus, write: Writer, encoder: Encoder, folder: Path, work: Path) -> dict[str, Any]:
    """Write both splits, the audit and the manifest.

    Args:
        work: folder for the tokens of each source of a mixture.

    Returns:
        Tokens, documents, bytes and bytes per token of each split.
    """
    config, splits, shares = corpus.config, {}, {}
    notes = write_audit(corpus, folder)
    if config.sources:
        splits["train"], shares = write_mixture(write, config, encoder, folder, work)
        print(describe_shares(shares))
    for split in SPLITS:
        if split not in splits:
            splits[split], _ = write(folder, split, split)
    tokens = {split: entry["tokens"] for split, entry in splits.items()}
    if shares:  # the mixture repeats or omits documents; the funnel counts each once
        tokens["train"] = sum(row["tokens"] for row in shares.values())
    corpus.funnel.count_tokens(tokens)
    if corpus.items:
        write_contaminated(corpus, folder)
    notes = {"funnel": corpus.funnel.as_dict()} | notes
    notes["sources"] = {
        label(config, name): {"license": source.license} | corpus.counts(name) | shares.get(name, {})
        for name, source in config.named_sources.items()
    }
    notes["evaluation_items"] = dict(corpus.items)
    notes["lengths"] = by_powers_of_two(corpus.lengths())
    notes["copies"] = {kind: by_powers_of_two(counts) for kind, counts in corpus.copies.items()}
    write_manifest(folder, splits, encoder.folder, encoder.vocab_size, notes)
    return {
        split: {
            "tokens": entry["tokens"],
            "documents": entry["documents"],
            "bytes": entry["bytes"],
            "bytes_per_token": entry["bytes"] / entry["tokens"],
        }
        for split, entry in splits.items()
    }


def describe_notes(notes: dict[str, Any], config: DataConfig) -> list[str]:
    """Lines for the terminal: the counts of a manifest that the funnel does not have."""
    lines = []
    if encodings := notes.get("encodings"):
        found = ", ".join(f"{count:,} {name}" for name, count in encodings.items())
        lines.append(f"documents that were not UTF-8: {found}")
    if counts := notes["evaluation_items"]:
        lines.append(
            f"evaluation items: {counts['searched']:,} searched, {counts['too short']:,} too short to search for "
            f"(no text of {config.decontamination.min_words} words)"
        )
    return lines
