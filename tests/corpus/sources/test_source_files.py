"""The files of a folder: which are read, and which are left out and named."""

import json
from types import SimpleNamespace

import pytest
from messages import refused
from provenance import write_provenance

from training.common.errors import UserError
from training.corpus.curation.fingerprint import source_digest
from training.corpus.curation.funnel import Funnel
from training.corpus.sources import SourceConfig, SourceReader


def ids(path, **options) -> list[str]:
    return [document.id for document in SourceReader(SourceConfig(path=str(path), **options), "", Funnel())]


def write(folder, **texts: str):
    """Files by their names, in which _ stands for a dot and __ for a slash."""
    for name, text in texts.items():
        file = folder / name.replace("__", "/").replace("_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_linked_folders_are_read_once(tmp_path):
    write(tmp_path, corpus__a_txt="a", real__b_txt="b", real__deep__c_txt="c")
    (tmp_path / "corpus" / "more").symlink_to(tmp_path / "real")
    (tmp_path / "corpus" / "again").symlink_to(tmp_path / "real" / "deep")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "corpus")
    assert ids(tmp_path / "corpus") == ["a.txt", "again/c.txt", "more/b.txt"]


def test_the_output_of_a_stage_is_not_its_input(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, a_txt="a", notes__b_md="b", runs__notes_md="c")
    before = source_digest(SourceConfig(path="."))
    for stage in ("data", "data_partial", "tokenizer"):
        write(tmp_path, **{f"runs__{stage}__README_md": "card", f"runs__{stage}__deep__dropped_jsonl": "{}"})
        write_provenance(tmp_path / "runs" / stage.replace("_", "."), "prepare")
    write(tmp_path, runs__summary_md="# Results")
    assert ids(".") == ids("**/*.*") == ["a.txt", "notes/b.md", "runs/notes.md"]
    assert source_digest(SourceConfig(path=".")) == before
    assert "outputs of stages are left out: runs/data" in capsys.readouterr().err
    (tmp_path / "runs" / "data" / "deep" / "dropped.jsonl").unlink()
    assert ids("runs/data") == ["README.md"]  # asked for


def test_files_that_are_not_read_are_counted_and_named(tmp_path, capsys):
    read = ["a.md", "b.markdown", "c.mdx", "d.rst", "e.py", "f.js", "g.rs", "h.TXT", "i.c", "j.tex"]
    for name in [*read, "k.json", "l.pdf", "m.pdf", "LICENSE"]:
        (tmp_path / name).write_text(name)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    write(tmp_path / ".git", config_txt="hidden")
    assert ids(tmp_path) == read
    said = capsys.readouterr().err
    assert "files of other types are left out: 5 (2 .pdf, " in said and "1 .json" in said and "broken links" in said
    assert "hidden folders are left out: 1" in said
    assert ids(tmp_path / "[a-j]*") == read
    assert "left out" not in capsys.readouterr().err
    assert ids(tmp_path / "[a-jL]*") == read
    assert "files of other types are left out: 1 (1 without an ending)" in capsys.readouterr().err
    for name in read:
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match=r"no file of a supported type: .*\.txt.*; files of other types .* 5 \(2 \.pdf"):
        ids(tmp_path)


CARD = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train-*}
  - {split: test, path: data/test-*}
---
# The set
"""


@pytest.mark.parametrize("card", [CARD, "---\nlicense: mit\n---\n# The set\n", None])
def test_a_clone_of_a_hub_data_set_is_read_as_the_data_set(tmp_path, capsys, card):
    pytest.importorskip("datasets")
    clone = tmp_path / "clones" / "set"
    for split in ("train", "test"):
        rows = [json.dumps({"text": f"{split} {number}"}) + "\n" for number in range(3)]
        write(clone, **{f"data__{split}-00000-of-00001_jsonl": "".join(rows)})
    if card:
        write(clone, README_md=card)
    for path in (clone, clone.parent, clone / "data"):
        for split in ("train", "test"):
            found = ids(path, split=split)
            assert len(found) == 3 and all(f"{split}-00000-of-00001.jsonl:" in name for name in found)
    assert "read as a data set, its split 'test' alone" in capsys.readouterr().err
    with pytest.raises(UserError, match="'data.split': .* has no split 'tset'; did you mean 'test'"):
        ids(clone, split="tset")
    assert len(ids(clone / "data" / "*.jsonl")) == 6


def test_configurations_of_a_clone_are_told_apart(tmp_path):
    pytest.importorskip("datasets")
    configs = [f"- {{config_name: {name}, data_files: {name}/*.txt}}\n" for name in ("de", "en")]
    write(tmp_path, README_md="---\nconfigs:\n" + "".join(configs) + "---\n", de__a_txt="eins", en__a_txt="one")
    assert ids(tmp_path, subset="en") == ["en/a.txt"]
    with pytest.raises(UserError, match="'data.path': .*'data.subset'") as caught:
        ids(tmp_path)
    assert "\n" not in str(caught.value)


def test_notes_with_front_matter_are_text(tmp_path):
    write(tmp_path, README_md="---\ntitle: Notes\ntags: [a]\n---\nText.", a_txt="a")
    assert ids(tmp_path) == ["README.md", "a.txt"]


def test_files_outside_a_clone_are_refused(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    card = f"---\nconfigs:\n- {{config_name: default, data_files: {tmp_path}/other/*.txt}}\n---\n"
    write(tmp_path, set__README_md=card, set__a_txt="a", other__b_txt="b")
    with refused("data.path", "/set ", "other/b.txt", "a glob"):
        ids(tmp_path / "set")
    elsewhere = SimpleNamespace(config=SimpleNamespace(data_files={"train": ["hf://datasets/owner/name/b.txt"]}))
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: elsewhere)
    with refused("data.path", "/set ", "hf:", "a glob"):
        ids(tmp_path / "set")


@pytest.mark.parametrize("field", ["date: 2024-13-45", "a: [", "a: " + "[" * 5000], ids=["date", "bracket", "brackets"])
def test_a_card_that_is_not_valid_yaml(tmp_path, field):
    pytest.importorskip("datasets")
    write(tmp_path / "notes", README_md=f"---\ntask_ids: []\n{field}\n---\nText.", a_txt="a")
    assert ids(tmp_path / "notes") == ["README.md", "a.txt"]
    write(tmp_path / "set", **{"README_md": f"---\n{field}\n---\n", "train-00000-of-00001_jsonl": '{"text": "a"}\n'})
    with refused("data.path", "/set "):
        ids(tmp_path / "set")
