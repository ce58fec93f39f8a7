"""Tokens of the parts of a corpus, made by the tasks of a cluster, and joined to what one process would write."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from training.common.files import write_whole
from training.corpus.curation.curation import Curation
from training.corpus.curation.selection import PlacedBlock, Verdicts
from training.corpus.curation.splitting import SPLITS, Split
from training.corpus.execution.distributed import Cluster
from training.corpus.output.encoding import Encoder, Writer, Written
from training.data.shards import join_shards


@dataclass(frozen=True)
class TokenPart:
    """The documents of a part of a source, and a folder for the tokens of both splits."""

    source: str
    blocks: list[PlacedBlock]
    folder: Path

    @property
    def complete(self) -> Path:
        """The file that says so, with the counts of each split."""
        return self.folder / "complete.json"


def encode_spread(curation: Curation, encoder: Encoder, cluster: Cluster) -> Writer:
    """By the tasks of a cluster. The returned one joins what they wrote."""
    verdicts = curation.folder / "verdicts"
    curation.verdicts.save(verdicts)
    parts = token_parts(curation)
    missing = [part for part in parts if not part.complete.is_file()]
    sizes = [sum(block.passed for block in part.blocks) for part in missing]
    work = partial(encode_parts, encoder=encoder, verdicts=verdicts)
    cluster.spread("tokenizing", missing, sizes, work, lambda part: part.complete.is_file())

    def write(folder: Path, name: str, split: Split, source: str | None = None) -> Written:
        wanted = [part for part in parts if source in (None, part.source)]
        return join_parts(folder, name, split, wanted, encoder)

    return write


def token_parts(curation: Curation) -> list[TokenPart]:
    """In the order of the documents."""
    return [
        TokenPart(source, blocks, curation.folder / "tokens" / (source or "text") / f"{number:05}")
        for source, of_source in curation.blocks.items()
        for number, blocks in enumerate(of_source)
    ]


def encode_parts(parts: Sequence[TokenPart], encoder: Encoder, verdicts: Path) -> None:
    """What a task does."""
    opened = Verdicts.open(verdicts)
    for part in parts:
        part.folder.mkdir(parents=True, exist_ok=True)
        entries = {}
        for split in SPLITS:
            entries[split], sizes = encoder.write(part.folder, split, opened.documents(part.blocks, split))
            np.save(part.folder / f"{split}-sizes.npy", sizes)
        write_whole(part.complete, json.dumps(entries))


def join_parts(folder: Path, name: str, split: Split, parts: Sequence[TokenPart], encoder: Encoder) -> Written:
    """The shard `name` of the tokens that parts have of a split."""
    folders = [part.folder for part in parts]
    sizes = np.concatenate([np.load(part / f"{split}-sizes.npy") for part in folders])
    entry = join_shards(
        folder, name, [part / f"{split}-00000.ds" for part in folders], encoder.vocab_size, encoder.name
    )
    return entry | {"bytes": int(sizes.sum())}, sizes
