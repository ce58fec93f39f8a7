"""Small corpora, read whole."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

from training.corpus.curation.config import DataConfig
from training.corpus.curation.corpus import open_corpus


def load(config: DataConfig, folder: Path | None = None, workers: int = 1) -> SimpleNamespace:
    """Both splits as lists, the funnel, and all that there is to mine."""
    with tempfile.TemporaryDirectory() as temporary:
        corpus = open_corpus(config, folder or Path(temporary), workers)
        splits = {split: list(corpus.documents(split)) for split in ("train", "validation")}
        for split, documents in splits.items():
            assert corpus.size(split) == sum(document.size for document in documents)
            row = {"documents": len(documents), "bytes": corpus.size(split)}
            assert corpus.funnel.splits[split] == row
        everything = {split: list(corpus.everything(split)) for split in splits}
    return SimpleNamespace(**splits, funnel=corpus.funnel, everything=everything.get)


def write_texts(folder: Path, count: int = 40) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:02}.txt").write_text(f"Document {number}. " + "Once upon a time. " * (number + 1))
    return folder
