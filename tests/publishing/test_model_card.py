"""Model cards: they say what the model is, which data it has seen, and where it comes from."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard
from tiny_model import build
from tiny_stages import write_model, write_tokenizer

from modeling_scratch import ScratchForSequenceClassification, ScratchForTokenClassification
from training.model_io.model_kinds import CLASSIFIER, LANGUAGE_MODEL, REWARD_MODEL, TOKEN_CLASSIFIER
from training.publishing.lineage import lineage, made_from, training_data
from training.publishing.model_card import CardOptions, describe, model_card
from training.stages.stage import Stage

SOURCES = {
    "input.txt": {"license": None, "documents": 1, "bytes": 1_115_394},
    "stories": {"license": "cdla-sharing-1.0", "documents": 2000, "bytes": 1_800_000},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus of own text and of a dataset on the Hub, and the stages that were trained on it."""
    place = tmp_path_factory.mktemp("card")
    sources = {"input.txt": {"path": "/home/me/input.txt"}, "stories": {"path": "someone/Stories"}}
    prepare = Stage("prepare", str(place / "data"), {"data": {"sources": sources}}, {}, [])
    folder = prepare.begin()
    (folder / "manifest.json").write_text(json.dumps({"sources": SOURCES}))
    (folder / "instructions").mkdir()
    (folder / "instructions" / "train.jsonl").write_text("{}\n")
    prepare.finish({}, wrote="shards")
    tokenizer = write_tokenizer(place / "tokenizer")
    write_model(place / "pretrain", tokenizer, data=str(place / "data"))
    files = {"train": [str(place / "data/instructions/train.jsonl"), "/home/me/mine.jsonl"], "test": "test.jsonl"}
    datasets = [{"path": "json", "data_files": files}, {"path": "someone/Chats"}]
    write_model(place / "sft", tokenizer, "sft", model_name_or_path=str(place / "pretrain"), datasets=datasets)
    return place


def card(model, kind=LANGUAGE_MODEL, records=(), chat=True):
    options = CardOptions(name="tiny", description="", license=None, language=None, evaluation=None)
    return ModelCard(model_card(options, model, kind, list(records), chat))


def test_the_data_of_every_stage(place):
    text = card(build(), records=lineage(place / "sft"))
    table = text.text[text.text.index("## Training data") : text.text.index("## How it was made")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    assert rows[2:] == [
        ["pretrain", "input.txt", "not stated", "1", "1.12"],
        ["pretrain", "someone/Stories", "cdla-sharing-1.0", "2,000", "1.80"],
        ["sft", "instructions made from input.txt", "not stated", "", ""],
        ["sft", "instructions made from someone/Stories", "cdla-sharing-1.0", "", ""],
        ["sft", "mine.jsonl", "not stated", "", ""],
        ["sft", "someone/Chats", "not stated", "", ""],
    ]
    assert text.data.datasets == ["someone/Stories", "someone/Chats"] and text.data.base_model is None
    assert "/home/me" not in table and str(place) not in table


def test_data_that_are_gone(place, tmp_path):
    write_model(tmp_path / "pretrain", place / "tokenizer", data={str(tmp_path / "books"): 3, str(place / "data"): 1})
    names = [data.name for data in training_data(lineage(tmp_path / "pretrain"))]
    assert names == ["books", "input.txt", "someone/Stories"]


def test_a_checkpoint_has_the_lineage_of_its_run(place, tmp_path):
    shutil.copytree(place / "pretrain", tmp_path / "run/checkpoints/step-00000002")
    (tmp_path / "run/checkpoints/step-00000002/provenance.json").rename(tmp_path / "run/provenance.json")
    records = lineage(tmp_path / "run/checkpoints/step-00000002")
    assert [record["stage"] for record in records] == ["pretrain"]
    text = card(build(), records=records, chat=False).text
    assert "| pretrain, step-00000002 |  | `scratch pretrain" in text and "A base language model, trained from" in text
    assert not lineage(tmp_path / "run/checkpoints")


def test_the_adapter_of_a_run(place, tmp_path):
    """Beside the merged model, as a checkpoint, or somewhere else, where only the base is known."""
    shutil.copytree(place / "sft", tmp_path / "run")
    for folder in ("adapter", "trainer/checkpoint-2"):
        records = made_from({"model": str(place / "pretrain"), "adapter": str(tmp_path / "run" / folder)})
        assert [record["stage"] for record in records] == ["pretrain", "sft"]
    records = made_from({"model": str(place / "pretrain"), "adapter": str(tmp_path / "elsewhere")})
    assert [record["stage"] for record in records] == ["pretrain"]


def test_a_lineage_ends_at_a_model_that_was_written_again(place, tmp_path):
    """Its present record tells of another model than the one that was tuned, here even of one made from it."""
    for name, start in {"one": place / "pretrain", "two": tmp_path / "one"}.items():
        write_model(tmp_path / name, place / "tokenizer", "sft", model_name_or_path=str(start))
    assert [record["stage"] for record in lineage(tmp_path / "two")] == ["pretrain", "sft", "sft"]
    write_model(tmp_path / "one", place / "tokenizer", "sft", model_name_or_path=str(tmp_path / "two"))
    assert [record["stage"] for record in lineage(tmp_path / "two")] == ["sft"]


def test_a_corpus_that_was_written_again_is_only_named(place, tmp_path):
    for version in ("first", "second"):
        stage = Stage("prepare", str(tmp_path / "data"), {"version": version}, {}, ["--restart"])
        folder = stage.begin()
        (folder / "instructions").mkdir()
        (folder / "instructions" / "train.jsonl").write_text(f"{version}\n")
        (folder / "manifest.json").write_text(json.dumps({"sources": SOURCES}))
        stage.finish({}, wrote="shards")
        if version == "first":
            records = [{"path": "json", "data_files": {"train": str(tmp_path / "data/instructions/train.jsonl")}}]
            write_model(tmp_path / "pretrain", place / "tokenizer", data=str(tmp_path / "data"))
            write_model(tmp_path / "sft", place / "tokenizer", "sft", datasets=records)
            assert len(training_data(lineage(tmp_path / "pretrain") + lineage(tmp_path / "sft"))) == 4
    for model, name in {"pretrain": "data", "sft": "train.jsonl"}.items():
        assert [data.name for data in training_data(lineage(tmp_path / model))] == [name]


def test_a_local_folder_is_not_a_dataset_on_the_hub(place, tmp_path, monkeypatch):
    """By the record, when it is gone, although its path is written like a name on the Hub."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/chats").mkdir(parents=True)
    (tmp_path / "data/chats/train.jsonl").write_text("{}\n")
    datasets = [{"path": "data/chats"}, {"path": "someone/Chats"}]
    write_model(tmp_path / "sft", place / "tokenizer", "sft", datasets=datasets)
    shutil.rmtree("data")
    found = training_data(lineage(tmp_path / "sft"))
    assert [(data.name, data.on_the_hub) for data in found] == [("a folder", False), ("someone/Chats", True)]


def test_a_model_that_began_on_the_hub(place, tmp_path):
    write_model(tmp_path / "sft", place / "tokenizer", "sft", model_name_or_path="someone/model")
    records = lineage(tmp_path / "sft")
    assert card(build(), records=records).data.base_model is None  # it might be a folder that is gone
    records[0]["inputs"]["model"] = "someone/model"
    found = card(build(), records=records)
    assert found.data.base_model == "someone/model"
    assert "A language model, made from someone/model. It answers messages." in found.text


@pytest.mark.parametrize(
    "kind, chat, stages, words",
    [
        (LANGUAGE_MODEL, True, ["pretrain", "sft"], "A language model, trained from scratch. It answers messages."),
        (LANGUAGE_MODEL, False, ["pretrain"], "A base language model, trained from scratch. It continues text"),
        (LANGUAGE_MODEL, True, [], "A language model.\n"),  # nothing tells
        (REWARD_MODEL, True, ["pretrain", "reward"], "A reward model, trained from scratch. It scores the answer"),
        (TOKEN_CLASSIFIER, True, [], "A token classifier."),
    ],
)
def test_the_kind_of_model_in_words(kind, chat, stages, words):
    empty = {"recipe": {}, "inputs": {}, "metrics": {}, "versions": {}, "seconds": 1, "command": ""}
    records = [{"stage": stage} | empty for stage in stages]
    classes = {REWARD_MODEL: ScratchForSequenceClassification, TOKEN_CLASSIFIER: ScratchForTokenClassification}
    model = build()
    model = classes[kind](model.config) if kind in classes else model
    found = card(model, kind, records, chat)
    assert words in found.text and found.data.pipeline_tag == kind.task
    assert found.data.tags == ["scratch", "custom_code", *(["reward-model"] if kind is REWARD_MODEL else [])]


def test_labels_and_scores_of_a_classifier():
    model = ScratchForSequenceClassification(build().config)
    model.config.id2label = {0: "ham", 1: "spam | <b>"}
    accuracy = {"value": 0.9871, "stderr": 0.003, "n": 1026, "chance": 0.873}
    scores = {"accuracy": accuracy, "f1": 0.948, "precision": 0.9, "recall": 1.0}
    metrics = {"positive": "ham", "test": scores, "baseline": scores}
    record = {"stage": "classify", "recipe": {"model": "gone", "data": {"name": None, "train": "/home/me/texts.csv"}}}
    record |= {"inputs": {}, "metrics": metrics, "versions": {}, "seconds": 60, "command": "scratch classify"}
    found = card(model, CLASSIFIER, [record]).text
    assert "A text classifier, with the labels ham, spam &#124; &#60;b&#62;." in found
    assert "On 1,026 test texts; F1, precision and recall are those of the label ham." in found
    assert "| this model | 0.9871 | 0.9480 | 0.9000 | 1.0000 |" in found
    assert "| linear SVM on TF-IDF | 0.9871 |" in found and "| classify | texts.csv | not stated |" in found
    model.config.id2label = {number: f"label {number}" for number in range(77)}
    assert describe(model, CLASSIFIER, [], None, False) == "A text classifier, with 77 labels."


def test_commands_without_folders_of_this_machine():
    command = "scratch sft --datasets='[{path: json, data_files: {train: /home/me/my data/a.jsonl}}]' --x='a|b'"
    record = {"stage": "sft", "recipe": {}, "inputs": {}, "metrics": {}, "versions": {}, "seconds": 60}
    text = card(build(), records=[record | {"command": f"{command} --y=/home/me/z"}]).text
    shown = "'--datasets=[{path: json, data_files: {train: .../a.jsonl}}]' '--x=a\\|b' --y=.../z"
    assert f"| sft | 1.0 | `scratch sft {shown}` |" in text


def test_an_adapter_has_the_scores_of_other_models(tmp_path):
    (tmp_path / "results.md").write_text("# Evaluation\n\n| model |\n")
    options = CardOptions("tiny", "", None, None, str(tmp_path))
    assert "scores are of other models" in model_card(options, build(), LANGUAGE_MODEL, [], True)
