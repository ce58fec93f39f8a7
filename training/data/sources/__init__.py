"""Where documents come from: installed Python source, local files, standard input, the Hub."""

from training.data.sources.config import PYTHON, STDIN, SourceConfig
from training.data.sources.document import Document
from training.data.sources.files import is_hub_id
from training.data.sources.identity import check_distinct, source_digest
from training.data.sources.parts import Part, split_source
from training.data.sources.python import PythonFile, python_files, read_python
from training.data.sources.reader import Position, SourceReader, check_parts

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
    "is_hub_id",
    "python_files",
    "read_python",
    "source_digest",
    "split_source",
]
