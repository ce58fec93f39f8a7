"""Sources of documents: installed Python source, local files, standard input, the Hub."""

from training.corpus.sources.config import PYTHON, STDIN, SourceConfig
from training.corpus.sources.document import Document
from training.corpus.sources.files import is_hub_dataset
from training.corpus.sources.ordering import draw, shuffle_key
from training.corpus.sources.partitions import Partition, split_source
from training.corpus.sources.python import PythonFile, path_reason, python_files, read_python
from training.corpus.sources.reader import Position, SourceReader, check_partitions

__all__ = [
    "PYTHON",
    "STDIN",
    "Document",
    "Partition",
    "Position",
    "PythonFile",
    "SourceConfig",
    "SourceReader",
    "check_partitions",
    "draw",
    "is_hub_dataset",
    "path_reason",
    "python_files",
    "read_python",
    "shuffle_key",
    "split_source",
]
