"""Copies of recipe folders."""

import shutil
from pathlib import Path

import pytest

from training.stages.recipe_folders import copy_recipes


def test_a_copy_of_recipes_changes_paths_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    original, copy = Path("mine"), Path("other")
    original.mkdir()
    (original / "sft.yaml").write_bytes(b"# This is mine, see mine/template.jinja\r\noutput_dir: runs/mine/sft\n")
    (original / "dpo.yaml").write_bytes(b"output_dir: runs/mine-2/dpo\n# caf\xe9 at gold/mine/x\n")
    (original / "chats.jsonl").write_text('{"text": "mine/runs/mine"}\n')
    (original / "table.bin").write_bytes(b"\xff\xfe runs/mine")
    copy_recipes(original, copy)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == {
        "sft.yaml": b"# This is mine, see other/template.jinja\r\noutput_dir: runs/other/sft\n",
        **{name: (original / name).read_bytes() for name in ("dpo.yaml", "chats.jsonl", "table.bin")},
    }


def test_a_copy_of_recipes_is_whole_or_absent(tmp_path, monkeypatch):
    original = tmp_path / "mine"
    original.mkdir()
    (original / "sft.yaml").touch()
    (original / "gone.yaml").symlink_to("nowhere")
    with pytest.raises(shutil.Error):
        copy_recipes(original, tmp_path / "new" / "other")
    assert not list((tmp_path / "new").iterdir())
