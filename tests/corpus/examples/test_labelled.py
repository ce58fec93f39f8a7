"""Labelled texts: what stands in the file, as text, and none is lost."""

import json

import pytest

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
    data = read_labelled(write(tmp_path, ending))
    for split, count in {"train": 20, "validation": 10, "test": 14}.items():
        assert list(zip(data[split].labels, data[split].texts, strict=True)) == rows(count)
    assert "classify: 20 train, 10 validation, 14 test texts" in capsys.readouterr().out


def test_a_label_may_be_na(tmp_path):
    config = write(tmp_path, "csv")
    for file in config.files.values():
        with open(file, "a") as stream:
            stream.write("NA,three c\n")
    assert "NA" in read_labelled(config)["train"].labels


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("label,text\n1,a\n2\n", "train.csv:3: has 1 fields, the header 2"),
        ('label,text\n1,"a\n', "train.csv:2: a quote that is not closed"),
        ("label,text\n1,a\n,b\n", "record 2 has no label"),
        ("label,text\n1,a\n2, \n", "record 2 has no text"),
        ("label,texts\n1,a\n", "has no column 'text'; did you mean 'texts'"),
        ("", "holds no records"),
    ],
)
def test_faults_are_located(tmp_path, content, fact):
    config = write(tmp_path, "csv")
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(UserError, match=f"'data.train': .*{fact}"):
        read_labelled(config)
