"""Where documents come from: installed Python source, local files, standard input, the Hub."""

from training.corpus.sources.config import PYTHON, STDIN, SourceConfig
from training.corpus.sources.document import Document
from training.corpus.sources.files import is_hub_dataset
from training.corpus.sources.fingerprint import check_distinct, source_digest
from training.corpus.sources.partitions import Part, split_source
from training.corpus.sources.python import PythonFile, python_files, read_python
from training.corpus.sources.reader import Position, SourceReader, check_parts

__all__ = [
    "PYTHON",
    "STDIN",
    "Document",
    "Part",
    "Position",
    "PythonFile",
    "SourceConfig",
    "SourceReader",
    "check_distinct",
    "check_parts",
    "is_hub_dataset",
    "python_files",
    "read_python",
    "source_digest",
    "split_source",
]
