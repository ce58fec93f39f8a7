"""Labelled texts from files or the Hub, for `scratch classify`."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.common.errors import UserError, one_line
from training.common.files import reject_lfs_pointer
from training.corpus.examples.held_out import hold_out
from training.corpus.sources.records import RECORD_ENDINGS, holds_records, read_records
from training.stages.provenance import digest
from training.stages.recipe import PathText, nearest, option

LABELLED_SPLITS = ("train", "validation", "test")
DRAWN = 0.1  # share of the training texts drawn for a split without a file


@dataclass
class LabelledConfig:
    """Recipe keys of `data` of `scratch classify`."""

    train: PathText = option("train", f"training file ({RECORD_ENDINGS}); with data.name a split")
    validation: PathText | None = option(
        None, "validation file or split, by which the best epoch is chosen (default: drawn from the training texts)"
    )
    test: PathText | None = option(
        None, "test file or split, scored once at the end (default: drawn from the training texts)"
    )
    name: str | None = option(None, "dataset on the Hub instead of files, such as stanfordnlp/imdb")
    text_column: str = option("text", "column with the text")
    label_column: str = option("label", "column with the label, a word or a number")

    @property
    def files(self) -> dict[str, str]:
        """The files by key; empty for a dataset on the Hub."""
        places = {} if self.name else {f"data.{split}": getattr(self, split) for split in LABELLED_SPLITS}
        return {key: file for key, file in places.items() if file is not None}


@dataclass
class Labelled:
    """One split: texts and the names of their labels."""

    texts: list[str]
    labels: list[str]


class Unlabelled(UserError):
    """A split without a single label, such as the test splits of GLUE."""


def labelled_digests(config: LabelledConfig) -> dict[str, str]:
    """Digests of the data by key, see `training.stages.provenance.digest`.

    Raises:
        UserError: no such file.
    """
    if config.name:
        return {"data": config.name}
    return {key: digest(file, key) for key, file in config.files.items()}


def read_labelled(config: LabelledConfig, seed: int) -> dict[str, Labelled]:
    """The three splits. Those without a file or split of their own are drawn from the training texts.

    Args:
        seed: of the draw.

    Raises:
        UserError: a file of unknown kind, one that cannot be read, a missing column, a record without text or label,
            a single label, a label that training never sees, or too few texts to draw from.
    """
    places = _places(config)
    splits = {}
    for split in (split for split in LABELLED_SPLITS if split in places):
        try:
            splits[split] = _read(config, split, places[split])
        except Unlabelled:
            if getattr(config, split) is not None:
                raise
            print(f"classify: the {split} split of {config.name} has no labels and is not used")
    for split in LABELLED_SPLITS:
        if split not in splits:
            splits["train"], splits[split] = _draw(splits["train"], split, seed)
    counts = ", ".join(f"{len(splits[split].texts):,} {split}" for split in LABELLED_SPLITS)
    print(f"classify: {counts} texts")
    known = set(splits["train"].labels)
    if len(known) < 2:
        raise UserError(f"'data.train': every record has the label '{min(known)}'; give two or more labels")
    for split, data in splits.items():
        unseen = sorted(set(data.labels) - known)
        if unseen:
            raise UserError(f"'data.{split}': no training record has the label '{unseen[0]}'; known: {_names(known)}")
        absent = len(known.difference(data.labels))
        if absent:
            print(f"classify: {absent:,} of {len(known):,} labels have no {split} text; mean scores leave them out")
    seen = set(splits["train"].texts)
    for split in ("validation", "test"):
        texts = splits[split].texts
        leaked = sum(text in seen for text in texts)
        if leaked:
            print(f"classify: {leaked} of {len(texts)} {split} texts also occur in the training texts")
    return splits


def _places(config: LabelledConfig) -> dict[str, str]:
    """The file or split of each split that has one. A dataset on the Hub may have a split of that name."""
    places = {split: getattr(config, split) for split in LABELLED_SPLITS if getattr(config, split) is not None}
    if config.name and len(places) < len(LABELLED_SPLITS):
        import datasets

        try:
            known = datasets.get_dataset_split_names(config.name)
        except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
            raise UserError(f"'data.name': {config.name} cannot be read ({one_line(error)})") from None
        places = {split: split for split in LABELLED_SPLITS if split in known} | places
    return places


def _draw(train: Labelled, split: str, seed: int) -> tuple[Labelled, Labelled]:
    """Move a tenth of the training texts to another split, and report it."""
    drawn = hold_out(train.texts, train.labels, DRAWN, seed)
    if not drawn.held_out:
        raise UserError(f"'data.{split}': no label has two different training texts to draw from; give a file")
    print(
        f"classify: {len(drawn.held_out):,} of {len(train.texts):,} training texts become the {split} texts, with "
        "labels in proportion and a text of each rare label where there is room; "
        f"set 'data.{split}' to use a file or split instead"
    )
    kept, held_out = (Labelled([train.texts[n] for n in part], [train.labels[n] for n in part]) for part in drawn)
    return kept, held_out


def _read(config: LabelledConfig, split: str, where: str) -> Labelled:
    key = f"data.{split}"
    if not config.name and not Path(where).is_file():
        raise UserError(f"'{key}': {where} is not a file")
    suffix = Path(where).suffix.lower()
    if config.name or suffix == ".parquet":
        records = _rows_of_data_set(config, key, where)
        where = f"{config.name}, split {where}" if config.name else where
    elif holds_records(where):
        records = _rows_of_file(config, key, where)
    else:
        raise UserError(f"'{key}': {where} has an unknown file type; use {RECORD_ENDINGS}")
    found, unlabelled = Labelled([], []), []
    for number, text, label in records:
        if label in (None, ""):
            unlabelled.append(number)
        elif not isinstance(text, str) or not text.strip():
            raise UserError(f"'{key}': {where}, record {number} has no text; fix or remove the record")
        else:
            found.texts.append(text)
            found.labels.append(str(label))
    if unlabelled and not found.texts:
        raise Unlabelled(f"'{key}': no record of {where} has a label; use another split or file")
    if unlabelled:
        raise UserError(f"'{key}': {where}, record {unlabelled[0]} has no label; fix or remove the record")
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
    named = feature.int2str if isinstance(feature, datasets.ClassLabel) else None
    texts, labels = (table[column][:] for column in columns)
    for number, (text, label) in enumerate(zip(texts, labels, strict=True), start=1):
        if named:
            label = named(label) if label not in (None, -1) else None  # -1 by convention, as in the test splits of GLUE
        yield number, text, label


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
    wanted = {"data.text_column": config.text_column, "data.label_column": config.label_column}
    for key_of_column, column in wanted.items():
        if column not in names:
            raise UserError(f"'{key_of_column}': {where} ({key}) has no column '{column}'; {nearest(column, names)}")
    return config.text_column, config.label_column


def _names(labels: Any) -> str:
    return ", ".join(sorted(labels))
