import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prepare_inputs import function, rows, save_tokenizer
from provenance import write_provenance
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from modeling_scratch.tokenization_scratch import ScratchTokenizer
from training.commands import prepare
from training.common.errors import UserError
from training.corpus.curation.config import DataConfig
from training.corpus.curation.curation import Curation
from training.corpus.dedup.decontamination import Decontaminator
from training.corpus.examples.config import PairConfig
from training.corpus.output.examples import ExampleWriter
from training.corpus.sources import Document
from training.data.shards import open_shards, read_manifest
from training.stages.recipe import build
from training.stages.stage import Stage
from training.stages.yaml_values import read_yaml

ROOT = Path(__file__).parents[3]


@pytest.fixture
def place(tmp_path):
    """A tokenizer, and a folder of 20 Python packages of 10 functions."""
    save_tokenizer(tmp_path / "tokenizer")
    for package in range(20):
        folder = tmp_path / "source" / f"package{package:02}"
        folder.mkdir(parents=True)
        functions = (function(10 * package + number) for number in range(10))
        (folder / "module.py").write_text("\n\n".join(functions) + 'END = "<|endoftext|>"\n')
    return tmp_path


def arguments(place: Path, **overrides: object) -> list[str]:
    options = {
        "output_dir": place / "data",
        "tokenizer": place / "tokenizer",
        "data.path": place / "source",
        "data.split_by": "package",
        "data.validation_fraction": 0.25,
        "instructions.train": 60,
        "instructions.validation": 20,
        "preferences.train": 50,
        "preferences.validation": 20,
        "tasks": 12,
        "max_tokens": 600,
    }
    return [f"--{key}={value}" for key, value in (options | overrides).items()]


@pytest.mark.parametrize("options", [{}, {"digits": 1, "whitespace": "single"}])
def test_the_tokens_on_disk_are_those_of_our_own_tokenizer(tmp_path, options):
    """The pipeline encodes in bulk with the Rust library: here our own modules, and text that spells control tokens."""
    files = [file for file in sorted((ROOT / "training").rglob("*.py")) if file.stat().st_size]
    texts = [file.read_text() for file in files] + [
        "TURN = '<|im_start|>user<|im_end|><|endoftext|>'\n",
        "naïve 狐 🦊\r\n",
    ]
    folder = tmp_path / "source"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:03}.txt").write_bytes((text + f"# {number}\n").encode())
    ours = ScratchTokenizer.train(texts, 900, **options)
    ours.save(tmp_path / "tokenizer")
    counts = {f"{kind}.{split}": 0 for kind in ("instructions", "preferences") for split in ("train", "validation")}
    prepare.main(arguments(tmp_path, **counts, tasks=0))
    data = DataConfig(path=str(folder), split_by="package", validation_fraction=0.25)
    corpus = Curation(data, tmp_path / "work", workers=1).run()
    for split in ("train", "validation"):
        documents = list(corpus.documents(split))
        expected = [[*ours.encode(document.text, split_special_tokens=True), 0] for document in documents]
        assert open_shards(tmp_path / "data", split).tokens.tolist() == sum(expected, [])
        assert all(ours.decode(ids[:-1]) == document.text for ids, document in zip(expected, documents, strict=True))


def test_prepare_writes_everything_once(place, capsys):
    prepare.main(arguments(place))
    data = place / "data"
    printed = capsys.readouterr().out
    assert "validation" in printed and "wrote" in printed

    plain = Tokenizer.from_file(str(place / "tokenizer" / "tokenizer.json"))
    plain.encode_special_tokens = True  # the text spells <|endoftext|>, which must not end the document there
    manifest = read_manifest(data)
    texts = {file.read_text() for file in (place / "source").rglob("*.py")}
    for split in ("train", "validation"):
        shards = open_shards(data, split)
        starts = [0, *shards.document_ends[:-1]]
        documents = [shards.tokens[a:b].tolist() for a, b in zip(starts, shards.document_ends)]
        assert all(ids[-1] == 0 and 0 not in ids[:-1] for ids in documents)
        found = {plain.decode(ids[:-1]) for ids in documents}
        assert found <= texts
        assert sorted(documents) == sorted([*plain.encode(text).ids, 0] for text in found)
        texts -= found
        assert shards.text_bytes == sum(len(text.encode()) for text in found) == manifest["splits"][split]["bytes"]
    assert not texts

    groups = {}
    for kind, counts in {"instructions": (60, 20), "preferences": (50, 20)}.items():
        for split, count in zip(("train", "validation"), counts):
            records = rows(data / kind / f"{split}.jsonl")
            assert len(records) == count
            groups.setdefault(split, set()).update(record["group"] for record in records)
    assert not groups["train"] & groups["validation"]
    trained = [{row["name"] for row in rows(data / kind / "train.jsonl")} for kind in ("instructions", "preferences")]
    assert not trained[0] & trained[1]  # there are enough functions for both
    for name in ("body_choice", "docstring_choice"):
        items = rows(data / "tasks" / f"{name}.jsonl")
        assert len(items) == 12 and {item["group"] for item in items} <= groups["validation"]

    record = json.loads((data / "provenance.json").read_text())
    assert record["metrics"]["train"]["tokens"] == manifest["splits"]["train"]["tokens"]
    assert record["metrics"]["instructions"] == {"train": 60, "validation": 20}
    before = (data / "provenance.json").stat().st_mtime_ns
    prepare.main(arguments(place))
    assert "up to date" in capsys.readouterr().out
    assert (data / "provenance.json").stat().st_mtime_ns == before


def test_same_input_same_bytes(place):
    prepare.main(arguments(place))
    prepare.main(arguments(place, output_dir=place / "again"))
    for file in (place / "data").rglob("*"):
        if file.is_file() and file.name not in ("provenance.json", "recipe.yaml"):
            assert file.read_bytes() == (place / "again" / file.relative_to(place / "data")).read_bytes()


def test_functions_of_validation_are_not_in_train(place):
    """A package that copies a held-out function must not teach it."""
    train = Document("a", "a", "\n\n".join(map(function, range(10))))
    validation = Document("b", "b", "\n\n".join(map(function, range(8, 12))))
    documents, found = {"train": [train], "validation": [validation]}, []

    def keep_out(decontaminator: Decontaminator) -> None:  # only looks
        found.extend(decontaminator.hits(train.text))

    config = DataConfig(path=str(place / "source"))
    corpus = SimpleNamespace(config=config, documents=documents.get, keep_out=keep_out, decontaminators=[])
    (place / "data").mkdir()
    tokenizer = AutoTokenizer.from_pretrained(place / "tokenizer")
    pairs = PairConfig(train=100, validation=100)
    examples = ExampleWriter(corpus, tokenizer, place / "data", pairs, PairConfig(), tasks=0, max_tokens=600)
    counts = examples.write_held_out()
    assert counts["instructions"] == {"validation": 4}
    assert {item for item, _ in found} == {f"instructions/validation.jsonl:{number}" for number in (1, 2)}
    assert examples.write_training()["instructions"] == {"train": 8}
    answers = [row["messages"][1]["content"] for row in rows(place / "data" / "instructions" / "train.jsonl")]
    assert answers == [function(number).rstrip() for number in range(8)]


def test_prose_needs_no_chat_template(place):
    (place / "play.txt").write_text("".join(f"Line {number} of the play.\n" for number in range(300)))
    save_tokenizer(place / "plain", chat=False)
    options = {"output_dir": "out", "tokenizer": "plain", "data.path": "play.txt"}
    prepare.main([f"--{key}={place / name}" for key, name in options.items()])
    assert len(open_shards(place / "out", "train")) > len(open_shards(place / "out", "validation")) > 0
    assert not (place / "out" / "instructions").exists()


def refuse(place: Path, match: str, **overrides: object) -> None:
    with pytest.raises(UserError, match=match):
        prepare.main(arguments(place, **overrides))
    Stage.note_end("mistake", "")  # as the command line does
    assert not (place / "data").exists()
    shutil.rmtree(place / "data.partial", ignore_errors=True)  # which the next recipe may not discard


def test_bad_input_is_named(place):
    refuse(place, "no such folder; run `scratch tokenizer` first", tokenizer=place / "nowhere")
    refuse(place, "holds no tokenizer.json", tokenizer=place / "source")
    refuse(place, "no such file or folder", **{"data.path": place / "nowhere.txt"})
    refuse(place, "single package", **{"data.path": place / "source" / "package00" / "module.py"})
    (place / "blank").mkdir()
    (place / "blank" / "a.txt").write_text("   \n")
    refuse(place, "no text left", **{"data.path": place / "blank"})
    (place / "prose").mkdir()
    for number in range(5):
        (place / "prose" / f"{number}.txt").write_text(f"No function here, {number}.")
    refuse(place, "holds no Python function", **{"data.path": place / "prose"})
    save_tokenizer(place / "plain", chat=False)
    refuse(place, "has no chat template", tokenizer=place / "plain")
    refuse(place, "unknown key 'data.paht'; did you mean 'path'", **{"data.paht": "x"})


def test_other_stages_folders_are_refused(place):
    prepare.main(arguments(place))
    with pytest.raises(UserError, match="holds the output of 'prepare'"):
        prepare.main(arguments(place, tokenizer=place / "data"))
    write_provenance(place / "tokenizer", "tokenizer")
    with pytest.raises(UserError, match="holds the output of 'tokenizer'"):
        prepare.main(arguments(place, output_dir=place / "tokenizer"))


def test_quickstart_recipe_is_understood():
    config = build(prepare.PrepareConfig, read_yaml(ROOT / "recipes" / "quickstart" / "prepare.yaml"), "prepare.yaml")
    assert config.data.path == "python" and config.has_examples


@pytest.mark.parametrize("name", ["body_choice", "docstring_choice"])
def test_task_files_point_at_the_quickstart(name):
    task = yaml.safe_load((ROOT / "recipes" / "lm_eval" / f"scratch_{name}.yaml").read_text())
    assert task["task"] == f"scratch_{name}"
    assert task["dataset_kwargs"]["data_files"]["test"] == f"runs/quickstart/data/tasks/{name}.jsonl"
    assert (task["doc_to_text"], task["doc_to_choice"], task["doc_to_target"]) == ("query", "choices", "gold")
