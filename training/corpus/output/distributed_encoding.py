"""Distributed encoding: tasks of a cluster tokenize the partitions of a corpus, which are joined to the same shards."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from training.common.files import write_whole
from training.corpus.curation.corpus import Corpus
from training.corpus.curation.selection import PlacedBlock, Selection
from training.corpus.curation.splitting import SPLITS, Split
from training.corpus.execution.distributed import Cluster
from training.corpus.output.encoding import Encoder, Writer, Written
from training.data.shards import join_shards


@dataclass(frozen=True)
class TokenPartition:
    """The documents of a partition of a source, and a folder for the tokens of both splits."""

    source: str
    blocks: list[PlacedBlock]
    folder: Path

    @property
    def complete(self) -> Path:
        """The file that marks the tokens as complete, with the counts of each split."""
        return self.folder / "complete.json"


def encode_distributed(corpus: Corpus, encoder: Encoder, cluster: Cluster) -> Writer:
    """Tokenize with the tasks of a cluster; the writer returned joins their tokens."""
    selection = corpus.folder / "selection"
    corpus.selection.save(selection)
    partitions = token_partitions(corpus)
    missing = [partition for partition in partitions if not partition.complete.is_file()]
    sizes = [sum(block.passed for block in partition.blocks) for partition in missing]
    work = partial(encode_partitions, encoder=encoder, selection=selection)
    cluster.run("tokenizing", missing, sizes, work, lambda partition: partition.complete.is_file())

    def write(folder: Path, name: str, split: Split, source: str | None = None) -> Written:
        chosen = [partition for partition in partitions if source in (None, partition.source)]
        return join_partitions(folder, name, split, chosen, encoder)

    return write


def token_partitions(corpus: Corpus) -> list[TokenPartition]:
    """The partitions of a corpus, in the order of the documents."""
    return [
        TokenPartition(source, blocks, corpus.folder / "tokens" / (source or "text") / f"{number:05}")
        for source, of_source in corpus.blocks.items()
        for number, blocks in enumerate(of_source)
    ]


def encode_partitions(partitions: Sequence[TokenPartition], encoder: Encoder, selection: Path) -> None:
    """The work of one task: write the tokens of some partitions."""
    opened = Selection.open(selection)
    for partition in partitions:
        partition.folder.mkdir(parents=True, exist_ok=True)
        entries = {}
        for split in SPLITS:
            entries[split], sizes = encoder.write(partition.folder, split, opened.documents(partition.blocks, split))
            np.save(partition.folder / f"{split}-sizes.npy", sizes)
        write_whole(partition.complete, json.dumps(entries))


def join_partitions(
    folder: Path, name: str, split: Split, partitions: Sequence[TokenPartition], encoder: Encoder
) -> Written:
    """Join the tokens that partitions have of a split into the shard `name`."""
    folders = [partition.folder for partition in partitions]
    sizes = np.concatenate([np.load(partition / f"{split}-sizes.npy") for partition in folders])
    entry = join_shards(
        folder, name, [partition / f"{split}-00000.ds" for partition in folders], encoder.vocab_size, encoder.name
    )
    return entry | {"bytes": int(sizes.sum())}, sizes
