"""scratch classify: labels are learnt from files, and what is wrong with the files is told in a line."""

import csv
import json
import random
import shutil

import pytest
import torch
from messages import refused
from tiny_stages import flags, forget_accelerate, write_model, write_tokenizer
from transformers import AutoModelForSequenceClassification, Trainer, pipeline

from training.commands.classify import main
from training.common.errors import UserError
from training.stages.provenance import read_provenance, staging_dir
from training.tuning.classification.classifier import open_padding_tokenizer, pick_positive, tokenize_texts

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

NOUNS = "the cat on a mat and another table under".split()
SIZES = {"train": 96, "validation": 24, "test": 32}


def records(count: int, seed: int) -> list[dict[str, str]]:
    """A text is of the sitting kind if `sat` stands in it, so the rarer label can be read off the words."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        words, sits = draw.choices(NOUNS, k=draw.randint(3, 9)), draw.random() < 0.4
        words.insert(draw.randrange(len(words)), "sat" if sits else "looked")
        found.append({"text": " ".join(words), "label": "sitting" if sits else "looking"})
    return found


def write_jsonl(file, rows) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    place = tmp_path_factory.mktemp("outputs")
    write_model(place / "pretrain", write_tokenizer(place / "tokenizer"))
    write_model(place / "positions", place / "tokenizer", preset="gpt2")
    for seed, (split, count) in enumerate(SIZES.items()):
        write_jsonl(place / f"{split}.jsonl", records(count, seed))
    return place


def classify(**options: object) -> None:
    files = {f"data.{split}": f"{split}.jsonl" for split in SIZES}
    training = {"num_train_epochs": 6, "per_device_train_batch_size": 8, "learning_rate": 3e-3}
    options = {key.replace("__", "."): value for key, value in options.items()}
    main(flags({"output_dir": "new", "model": "pretrain"} | files | training | options))


def test_it_learns_what_the_words_say(place, capsys):
    classify()
    metrics = read_provenance("new")["metrics"]
    assert metrics["positive"] == "sitting" and metrics["labels"] == ["looking", "sitting"]
    assert metrics["test"]["accuracy"]["value"] > metrics["test"]["accuracy"]["chance"] + 0.2
    assert metrics["baseline"]["f1"] > 0.9
    out = capsys.readouterr().out
    assert "linear SVM on TF-IDF" in out and "classify: wrote new" in out
    with (place / "new" / "confusion.csv").open() as stream:
        assert sum(int(count) for _, *row in list(csv.reader(stream))[1:] for count in row) == SIZES["test"]
    with (place / "new" / "labels.csv").open() as stream:
        assert [row["label"] for row in csv.DictReader(stream)] == ["looking", "sitting"]
    for file in ("confusion.png", "loss.png", "metrics.jsonl", "tokenizer.json", "modeling_scratch.py"):
        assert (place / "new" / file).is_file()
    assert not (place / "new" / "trainer").exists()
    classify()
    assert "up to date, skipped" in capsys.readouterr().out


def test_stock_transformers_gives_the_same_labels(place):
    """Also where padding on the left would give other positions to the tokens."""
    classify(model="positions", num_train_epochs=1, baseline="false")
    predictions = [json.loads(line) for line in (place / "new" / "predictions.jsonl").read_text().splitlines()]
    label = pipeline("text-classification", model="new", device="cpu")
    for prediction, answer in zip(predictions, label([row["text"] for row in predictions], batch_size=8), strict=True):
        if prediction["probability"] > 0.51:  # the Trainer may have predicted in bfloat16
            assert answer["label"] == prediction["predicted"]
        assert answer["score"] == pytest.approx(prediction["probability"], abs=0.02)
    ids = label.tokenizer("ends with <|im_end|>")["input_ids"]  # in training and here
    assert label.tokenizer.decode(ids) == "ends with <|im_end|>" and min(ids) >= 4
    examples = tokenize_texts(["<|im_end|>"], ["sitting"], open_padding_tokenizer("pretrain"), label.model, 99, "test")
    assert min(examples[0]["input_ids"]) >= 4


def test_the_best_epoch_is_kept(place):
    classify(num_train_epochs=4, learning_rate=3e-2, baseline="false")
    log = [json.loads(line) for line in (place / "new" / "metrics.jsonl").read_text().splitlines()]
    kept = read_provenance("new")["metrics"]["validation"]["f1"]
    assert kept == pytest.approx(max(record["eval_f1"] for record in log if "eval_f1" in record))


def test_random_weights_know_nothing_of_the_model(place):
    classify(num_train_epochs=1, baseline="false", output_dir="pretrained", learning_rate=0.0)
    classify(num_train_epochs=1, baseline="false", output_dir="random", learning_rate=0.0, from_random_weights="true")
    kept, fresh = (AutoModelForSequenceClassification.from_pretrained(name) for name in ("pretrained", "random"))
    start = AutoModelForSequenceClassification.from_pretrained("pretrain")
    assert torch.equal(kept.model.embed_tokens.weight, start.model.embed_tokens.weight)
    assert not torch.allclose(fresh.model.embed_tokens.weight, start.model.embed_tokens.weight)


def test_an_interrupted_run_goes_on_to_the_same_weights(place, monkeypatch):
    classify(num_train_epochs=3, baseline="false", output_dir="whole")
    save, saved = Trainer._save_checkpoint, []

    def save_and_stop(self, *arguments):
        save(self, *arguments)
        saved.append(1)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_save_checkpoint", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        classify(num_train_epochs=3, baseline="false")
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert (staging_dir("new") / "trainer").is_dir() and not (place / "new").exists()
    forget_accelerate()
    with refused("output_dir", "new.partial", "seed: 0 -> 1", "--restart"):
        classify(num_train_epochs=3, baseline="false", seed=1)
    classify(num_train_epochs=3, baseline="false")
    whole, resumed = (AutoModelForSequenceClassification.from_pretrained(name) for name in ("whole", "new"))
    assert all(
        torch.equal(first, second) for first, second in zip(whole.parameters(), resumed.parameters(), strict=True)
    )


def test_labels_may_be_numbers_and_columns_of_other_names(place):
    for split in SIZES:
        rows = [json.loads(line) for line in (place / f"{split}.jsonl").read_text().splitlines()]
        lines = [f"{row['text']}\t{['looking', 'sitting'].index(row['label'])}" for row in rows]
        (place / f"{split}.tsv").write_text("\n".join(["sms\tspam", *lines]) + "\n")
    files = {f"data__{split}": f"{split}.tsv" for split in SIZES}
    classify(num_train_epochs=1, data__text_column="sms", data__label_column="spam", **files)
    assert read_provenance("new")["metrics"]["labels"] == ["0", "1"]


def test_long_texts_are_cut_and_counted(place, capsys):
    classify(num_train_epochs=1, max_length=3, baseline="false")
    out = capsys.readouterr().out
    assert f"{SIZES['test']} of {SIZES['test']} test texts have more than 3 tokens and are truncated" in out


def spoil(split: str, **changes: object):
    """The first record of a split, changed."""

    def change(place) -> None:
        first, *rest = map(json.loads, (place / f"{split}.jsonl").read_text().splitlines())
        write_jsonl(place / f"{split}.jsonl", [first | changes, *rest])

    return change


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({"data__train": "nowhere.jsonl"}, None, "'data.train': no such file or folder: nowhere.jsonl"),
        ({"data__test": "pretrain/config.json"}, None, "'data.text_column': pretrain/config.json (data.test) has no"),
        ({"data__test": "tokenizer/chat_template.jinja"}, None, "has an unknown file type; use .jsonl"),
        ({"data__label_column": "lable"}, None, "'data.label_column': train.jsonl (data.train) has no column 'lable'"),
        ({}, spoil("train", text=" "), "train.jsonl, record 1 has no text"),
        ({}, spoil("train", label=None), "train.jsonl, record 1 has no label"),
        ({}, spoil("test", label="standing"), "no training record has the label 'standing'; known: looking, sitting"),
        ({"positive_label": "siting"}, None, "has the label 'siting'; did you mean 'sitting'?"),
        ({"model": "tokenizer"}, None, "holds the output of 'tokenizer'"),
        ({"learning_rte": 1}, None, "unknown key 'learning_rte'; did you mean 'learning_rate'?"),
        ({"max_length": 0}, None, "'max_length' must be at least 1, not 0"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_written(place, options, change, message):
    if change:
        change(place)
    with pytest.raises(UserError) as told:
        classify(**options)
    assert message in str(told.value) and "\n" not in str(told.value)
    assert not (place / "new").exists() and not staging_dir("new").exists()


def test_a_single_label_is_refused(place):
    rows = [json.loads(line) | {"label": "sitting"} for line in (place / "train.jsonl").read_text().splitlines()]
    write_jsonl(place / "train.jsonl", rows)
    with pytest.raises(UserError, match="every record has the label 'sitting'"):
        classify()


def test_broken_lines_are_named(place):
    (place / "validation.jsonl").write_text('{"text": "a", "label"\n')
    with refused("data.validation", "validation.jsonl:1", "not valid JSON"):
        classify()


def test_texts_of_the_test_split_in_training_are_counted(place, capsys):
    shutil.copyfile(place / "train.jsonl", place / "test.jsonl")
    classify(num_train_epochs=1, baseline="false")
    assert f"classify: {SIZES['train']} of {SIZES['train']} test texts" in capsys.readouterr().out


def test_the_rarer_of_two_labels_is_the_positive_one():
    assert pick_positive(None, list("aab")) == "b"
    assert pick_positive("a", list("aab")) == "a"
    assert pick_positive(None, list("aabc")) is None
