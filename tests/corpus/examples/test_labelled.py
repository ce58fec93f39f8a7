"""Labelled texts: what stands in the file, as text, and none is lost."""

import json

import pytest
from messages import refused

from training.common.errors import UserError
from training.corpus.examples.labelled import LabelledConfig, read_labelled

TEXTS = ["NA", "null", "None", "nan", "2024", '"WIN now', "1e3", 'a 5" pipe', '"so what" she said', "two, three"]
LABELS = ["007", "010"]


def rows(count: int) -> list[tuple[str, str]]:
    return [(LABELS[number % 2], TEXTS[number % len(TEXTS)]) for number in range(count)]


def write(folder, ending: str) -> LabelledConfig:
    for split, count in {"train": 20, "validation": 10, "test": 14}.items():
        if ending == "tsv":
            content = "label\ttext\n" + "".join("\t".join(row) + "\n" for row in rows(count))
        elif ending == "csv":
            quoted = ((label, '"' + text.replace('"', '""') + '"') for label, text in rows(count))
            content = "label,text\n" + "".join(",".join(row) + "\n" for row in quoted)
        else:
            content = "".join(json.dumps({"label": label, "text": text}) + "\n" for label, text in rows(count))
        (folder / f"{split}.{ending}").write_text(content)
    return LabelledConfig(**{split: str(folder / f"{split}.{ending}") for split in ("train", "validation", "test")})


@pytest.mark.parametrize("ending", ["tsv", "csv", "jsonl"])
def test_every_row_comes_as_it_stands(tmp_path, capsys, ending):
    data = read_labelled(write(tmp_path, ending), 0)
    for split, count in {"train": 20, "validation": 10, "test": 14}.items():
        assert list(zip(data[split].labels, data[split].texts, strict=True)) == rows(count)
    assert "classify: 20 train, 10 validation, 14 test texts" in capsys.readouterr().out


def test_a_label_may_be_na(tmp_path):
    config = write(tmp_path, "csv")
    for file in config.files.values():
        with open(file, "a") as stream:
            stream.write("NA,three c\n")
    assert "NA" in read_labelled(config, 0)["train"].labels


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("label,text\n1,a\n2\n", "train.csv:3: has 1 fields, the header 2"),
        ('label,text\n1,"a\n', "train.csv:2: a quote that is not closed"),
        ("label,text\n1,a\n,b\n", "record 2 has no label"),
        ("label,text\n1,a\n2, \n", "record 2 has no text"),
        ("", "holds no records"),
    ],
)
def test_faults_are_located(tmp_path, content, fact):
    config = write(tmp_path, "csv")
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(UserError, match=f"'data.train': .*{fact}"):
        read_labelled(config, 0)


def test_a_missing_column_is_named_by_its_key(tmp_path):
    config = write(tmp_path, "csv")
    (tmp_path / "train.csv").write_text("label,texts\n1,a\n")
    with refused("data.text_column", "train.csv (data.train) has no column 'text'", "did you mean 'texts'"):
        read_labelled(config, 0)
    config.text_column, config.label_column = "texts", "category"
    with refused("data.label_column", "has no column 'category'"):
        read_labelled(config, 0)


def test_splits_without_a_file_are_drawn_from_the_training_texts(tmp_path, capsys):
    file = tmp_path / "all.jsonl"
    records = [{"text": f"text {number}", "label": LABELS[number % 2]} for number in range(100)]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    config = LabelledConfig(train=str(file))
    assert config.files == {"data.train": str(file)}
    data = read_labelled(config, 0)
    assert {split: len(part.texts) for split, part in data.items()} == {"train": 81, "validation": 10, "test": 9}
    assert len({text for part in data.values() for text in part.texts}) == 100
    out = capsys.readouterr().out
    assert "10 of 100 training texts become the validation texts" in out and "'data.validation'" in out
    assert "9 of 90 training texts become the test texts" in out
    file.write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    with refused("data.validation", "no label has two different training texts"):
        read_labelled(config, 0)


def test_labels_without_texts_in_a_split_are_counted(tmp_path, capsys):
    config = write(tmp_path, "csv")
    with open(tmp_path / "train.csv", "a") as stream:
        stream.write("rare,x\n")
    read_labelled(config, 0)
    out = capsys.readouterr().out
    assert "1 of 3 labels have no validation text" in out and "1 of 3 labels have no test text" in out


def test_a_dataset_on_the_hub_keeps_the_splits_it_has(monkeypatch):
    import datasets

    records = {split: [f"{split} {number}" for number in range(40)] for split in ("train", "test")}
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name: list(records))
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda name, split: datasets.Dataset.from_dict({"text": records[split], "label": ["a", "b"] * 20}),
    )
    data = read_labelled(LabelledConfig(name="owner/reviews"), 0)
    assert {split: len(part.texts) for split, part in data.items()} == {"train": 36, "validation": 4, "test": 40}


def test_a_split_on_the_hub_without_labels_is_drawn_instead(monkeypatch, capsys):
    """As in GLUE, whose test splits have the label -1."""
    import datasets

    names = datasets.ClassLabel(names=["bad", "good"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    labels = {"train": [0, 1] * 20, "validation": [0, 1] * 4, "test": [-1] * 8}
    splits = {
        split: datasets.Dataset.from_dict(
            {"text": [f"{split} {number}" for number in range(len(column))], "label": column}, features
        )
        for split, column in labels.items()
    }
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name: list(splits))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: splits[split])
    data = read_labelled(LabelledConfig(name="owner/glue"), 0)
    assert {split: len(part.texts) for split, part in data.items()} == {"train": 36, "validation": 8, "test": 4}
    out = capsys.readouterr().out
    assert "the test split of owner/glue has no labels" in out and "training texts become the test texts" in out
    with refused("data.test", "owner/glue", "no record", "label"):
        read_labelled(LabelledConfig(name="owner/glue", test="test"), 0)
    splits["test"] = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, -1]}, features)
    with refused("data.test", "record 2 has no label"):
        read_labelled(LabelledConfig(name="owner/glue"), 0)
