"""Small corpora, read whole."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

from training.corpus.curation.beyond_limits import BeyondLimits
from training.corpus.curation.config import DataConfig
from training.corpus.curation.curation import Curation


def load(config: DataConfig, folder: Path | None = None, workers: int = 1) -> SimpleNamespace:
    """Both splits as lists, the funnel, and all that functions may be mined from."""
    with tempfile.TemporaryDirectory() as temporary:
        corpus = Curation(config, folder or Path(temporary), workers).run()
        splits = {split: list(corpus.documents(split)) for split in ("train", "validation")}
        for split, documents in splits.items():
            assert corpus.size(split) == sum(document.size for document in documents)
            row = {"documents": len(documents), "bytes": corpus.size(split)}
            assert corpus.funnel.splits[split] == row
        mined = {split: documents + beyond_limits(corpus, split) for split, documents in splits.items()}
    return SimpleNamespace(**splits, corpus=corpus, funnel=corpus.funnel, mined=mined)


def beyond_limits(corpus, split) -> list:
    """The accepted documents beyond the limits."""
    beyond = BeyondLimits(corpus, split)
    return [document for document in beyond if beyond.accepts(document)]


def write_texts(folder: Path, count: int = 40) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:02}.txt").write_text(f"Document {number}. " + "Once upon a time. " * (number + 1))
    return folder
