"""Labelled texts from files or the Hub, for `scratch classify`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.recipe import PathText, nearest, option
from training.common.stage import digest

LABELLED_SPLITS = ("train", "validation", "test")
READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


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
    import datasets

    key, where = f"data.{split}", getattr(config, split)
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are reported here, in one line
    datasets.disable_progress_bars()
    try:
        if config.name:
            table = datasets.load_dataset(config.name, split=where)
            where = f"{config.name}, split {where}"
        else:
            suffix = Path(where).suffix.lower()
            if suffix not in READERS:
                raise UserError(f"'{key}': {where} has an unknown file type; use {', '.join(READERS)}")
            options = {"sep": "\t"} if suffix == ".tsv" else {}
            table = datasets.load_dataset(READERS[suffix], data_files=where, split="train", **options)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        cause = error.__cause__ or error
        raise UserError(f"'{key}': {where} cannot be read ({' '.join(str(cause).split())})") from None
    finally:
        datasets.enable_progress_bars()
    for column in (config.text_column, config.label_column):
        if column not in table.column_names:
            raise UserError(f"'{key}': {where} has no column '{column}'; {nearest(column, table.column_names)}")
    if not len(table):
        raise UserError(f"'{key}': {where} holds no records")
    feature = table.features[config.label_column]
    named = feature.int2str if isinstance(feature, datasets.ClassLabel) else str
    texts, labels = table[config.text_column][:], table[config.label_column][:]
    for number, (text, label) in enumerate(zip(texts, labels, strict=True), start=1):
        if not isinstance(text, str) or not text.strip() or label is None:
            what = "label" if label is None else "text"
            raise UserError(f"'{key}': {where}, record {number} has no {what}; fix or remove the record")
    return Labelled(texts, [named(label) for label in labels])


def _names(labels: Any) -> str:
    return ", ".join(sorted(labels))
