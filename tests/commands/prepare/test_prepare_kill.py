"""`scratch prepare` killed again and again writes the shards of a run that was never touched."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from prepare_inputs import save_tokenizer

ROOT = Path(__file__).parents[3]
DOCUMENTS = 4_000
# Small blocks, so that there are many moments to die in.
PROGRAM = """
import sys
from training.corpus.curation import blocks
blocks.BLOCK_DOCUMENTS = 100
from training.cli import main
if __name__ == "__main__":
    main(["prepare", *sys.argv[1:]])
"""


def write_records(file: Path) -> None:
    draw = random.Random(0)
    vocabulary = ["".join(draw.choices("abcdefghij", k=5)) for _ in range(2_000)]
    with file.open("w") as stream:
        for number in range(DOCUMENTS):
            if number % 5 or not number:
                text = " ".join(draw.choices(vocabulary, k=150)) + "."
            else:
                text += " And then."
            stream.write(json.dumps({"text": text}) + "\n")


def shards(folder: Path) -> dict[str, bytes]:
    records = ("provenance.json", "recipe.yaml")
    return {path.name: path.read_bytes() for path in folder.glob("*") if path.name not in records}


def test_killed_anywhere_it_writes_the_same_bytes(tmp_path):
    write_records(tmp_path / "a.jsonl")
    save_tokenizer(tmp_path / "tokenizer")
    (tmp_path / "program.py").write_text(PROGRAM)

    def start(name: str, workers: int) -> subprocess.Popen:
        options = {
            "tokenizer": tmp_path / "tokenizer",
            "output_dir": tmp_path / name,
            "data.path": tmp_path / "a.jsonl",
            "data.dedup.near": "true",
            "workers": workers,
        }
        flags = [f"--{key}={value}" for key, value in options.items()]
        command = [sys.executable, tmp_path / "program.py", *flags]
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def blocks() -> int:
        return len(list((tmp_path / "killed.partial" / "work" / "blocks" / "text" / "00000").glob("*.json")))

    process = start("whole", workers=1)
    assert process.wait() == 0, process.stderr.read()
    draw, kills, before = random.Random(1), 0, 0
    for workers in (1, 2, 2):
        process = start("killed", workers)
        while process.poll() is None and blocks() <= before:  # it must get on, or this never ends
            time.sleep(0.002)
        time.sleep(draw.random() * 0.15)
        before = blocks()
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 2
    process = start("killed", workers=2)
    assert process.wait() == 0, process.stderr.read()
    assert shards(tmp_path / "killed") == shards(tmp_path / "whole")
    assert not (tmp_path / "killed" / "work").exists()
    dropped = json.loads((tmp_path / "killed" / "manifest.json").read_text())["funnel"]["dropped"]
    assert dropped["near duplicate"]["documents"] == DOCUMENTS // 5 - 1
