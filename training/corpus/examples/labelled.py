"""Labelled texts from files or the Hub, for `scratch classify`."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.common.errors import UserError, one_line
from training.common.files import reject_lfs_pointer
from training.common.recipe import PathText, nearest, option
from training.common.stage import digest
from training.corpus.sources.records import holds_records, read_records

LABELLED_SPLITS = ("train", "validation", "test")
ENDINGS = ".jsonl .json .csv .tsv (also compressed) .parquet"


@dataclass
class LabelledConfig:
    """Recipe keys of `data` of `scratch classify`."""

    train: PathText = option("train", "training file (.jsonl, .csv, .tsv or .parquet); with data.name a split")
    validation: PathText = option("validation", "validation file or split, by which the best epoch is chosen")
    test: PathText = option("test", "test file or split, scored once at the end")
    name: str | None = option(None, "dataset on the Hub instead of files, such as stanfordnlp/imdb")
    text_column: str = option("text", "column with the text")
    label_column: str = option("label", "column with the label, a word or a number")

    @property
    def files(self) -> dict[str, str]:
        return {} if self.name else {f"data.{split}": getattr(self, split) for split in LABELLED_SPLITS}


@dataclass
class Labelled:
    """One split: texts and the names of their labels."""

    texts: list[str]
    labels: list[str]


def labelled_digests(config: LabelledConfig) -> dict[str, str]:
    """Digests of the data by key, see `training.common.stage.digest`.

    Raises:
        UserError: no such file.
    """
    if config.name:
        return {"data": config.name}
    return {key: digest(file, key) for key, file in config.files.items()}


def read_labelled(config: LabelledConfig) -> dict[str, Labelled]:
    """The three splits.

    Raises:
        UserError: a file of unknown kind, one that cannot be read, a missing column, a record without text or label,
            a single label, or a label that training never sees.
    """
    splits = {split: _read(config, split) for split in LABELLED_SPLITS}
    counts = ", ".join(f"{len(data.texts):,} {split}" for split, data in splits.items())
    print(f"classify: {counts} texts")
    known = set(splits["train"].labels)
    if len(known) < 2:
        raise UserError(f"'data.train': every record has the label '{min(known)}'; give two or more labels")
    for split, data in splits.items():
        unseen = sorted(set(data.labels) - known)
        if unseen:
            raise UserError(f"'data.{split}': no training record has the label '{unseen[0]}'; known: {_names(known)}")
    seen = set(splits["train"].texts)
    leaked = sum(text in seen for text in splits["test"].texts)
    if leaked:
        print(f"classify: {leaked} of {len(splits['test'].texts)} test texts also occur in the training texts")
    return splits


def _read(config: LabelledConfig, split: str) -> Labelled:
    key, where = f"data.{split}", getattr(config, split)
    if not config.name and not Path(where).is_file():
        raise UserError(f"'{key}': {where} is not a file")
    suffix = Path(where).suffix.lower()
    if config.name or suffix == ".parquet":
        records = _rows_of_data_set(config, key, where)
        where = f"{config.name}, split {where}" if config.name else where
    elif holds_records(where):
        records = _rows_of_file(config, key, where)
    else:
        raise UserError(f"'{key}': {where} has an unknown file type; use {ENDINGS}")
    found = Labelled([], [])
    for number, text, label in records:
        missing = "label" if label in (None, "") else "text" if not isinstance(text, str) or not text.strip() else None
        if missing:
            raise UserError(f"'{key}': {where}, record {number} has no {missing}; fix or remove the record")
        found.texts.append(text)
        found.labels.append(str(label))
    if not found.texts:
        raise UserError(f"'{key}': {where} holds no records")
    return found


Rows = Iterator[tuple[int, Any, Any]]  # number, text and label of each record


def _rows_of_data_set(config: LabelledConfig, key: str, where: str) -> Rows:
    """Rows of a Parquet file, or of a split on the Hub."""
    import datasets

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are reported here, in one line
    datasets.disable_progress_bars()
    try:
        if config.name:
            table = datasets.load_dataset(config.name, split=where)
        else:
            reject_lfs_pointer(Path(where))
            # Not relative, and escaped: `datasets` takes a name with square brackets for a pattern.
            table = datasets.load_dataset("parquet", data_files=glob.escape(os.path.abspath(where)), split="train")
    except UserError as error:
        raise UserError(f"'{key}': {error}") from None
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise UserError(f"'{key}': {where} cannot be read ({one_line(error.__cause__ or error)})") from None
    finally:
        datasets.enable_progress_bars()
    columns = _columns(config, table.column_names, key, where)
    feature = table.features[config.label_column]
    named = feature.int2str if isinstance(feature, datasets.ClassLabel) else lambda label: label
    texts, labels = (table[column][:] for column in columns)
    for number, (text, label) in enumerate(zip(texts, labels, strict=True), start=1):
        yield number, text, None if label is None else named(label)


def _rows_of_file(config: LabelledConfig, key: str, where: str) -> Rows:
    """Rows of a .jsonl, .json, .csv or .tsv; of tables strictly as text: a label 007 keeps its zeros, NA is a text."""
    try:
        records = list(read_records(Path(where)))
    except UserError as error:
        raise UserError(f"'{key}': {error}") from None
    for place, (number, record) in enumerate(records):
        columns = (config.text_column, config.label_column) if place else _columns(config, list(record), key, where)
        yield number, *map(record.get, columns)


def _columns(config: LabelledConfig, names: list[str], key: str, where: str) -> tuple[str, str]:
    """The columns of texts and labels. Raises UserError: one is missing."""
    for column in (config.text_column, config.label_column):
        if column not in names:
            raise UserError(f"'{key}': {where} has no column '{column}'; {nearest(column, names)}")
    return config.text_column, config.label_column


def _names(labels: Any) -> str:
    return ", ".join(sorted(labels))
