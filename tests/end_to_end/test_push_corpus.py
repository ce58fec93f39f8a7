"""A prepared folder goes to a hub as a data set, what is private stays, and the code on its card reads it."""

import json
import re
import shutil
import sys

import pytest
from hub_server import TOKEN, running_hub
from prepare_inputs import save_tokenizer
from tiny_stages import write_text

from training.commands import prepare
from training.data.shards import open_shards

PUBLISHED = {"README.md", "funnel.png", "samples.md", "manifest.json"} | {
    f"{split}-00000.ds{ending}" for split in ("train", "validation") for ending in ("", ".index", ".metadata")
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("push")
    save_tokenizer(place / "tokenizer")
    text = write_text(place / "text.txt").read_text().splitlines()
    rows = [" ".join(text[number : number + 5]) for number in range(0, 300, 5)] + [text[0] * 2, text[0] * 2]
    (place / "text.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    options = {"output_dir": "data", "tokenizer": "tokenizer", "data.path": "text.jsonl"}
    options = [f"--{key}={place / value}" for key, value in options.items()]
    prepare.main([*options, "--data.dedup.near=true"])
    return place


@pytest.fixture
def online(tmp_path):
    with running_hub() as hub:
        yield (
            hub,
            {
                "HF_HUB_OFFLINE": None,
                "HF_ENDPOINT": hub.url,
                "HF_TOKEN": TOKEN,
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_DISABLE_XET": "1",
            },
        )


def test_push_and_read(terminal, place, online, tmp_path):
    hub, environment = online
    done = terminal.scratch("push", "data", "me/corpus", "--dataset", cwd=place, **environment)
    assert done.stdout.splitlines()[-1] == f"push: wrote {hub.url}/datasets/me/corpus"
    uploaded = hub.files["datasets/me/corpus"]
    assert "me/corpus" not in hub.files  # no model
    assert (place / "data" / "dropped.jsonl").is_file() and (place / "data" / "near_duplicates.jsonl").is_file()
    assert set(uploaded) - {".gitattributes"} == PUBLISHED
    assert all(uploaded[name] == (place / "data" / name).read_bytes() for name in PUBLISHED)

    (code,) = re.findall(r"^```python\n(.*?)^```", uploaded["README.md"].decode(), flags=re.MULTILINE | re.DOTALL)
    code = code.replace("YOUR_NAME/YOUR_DATA", "me/corpus") + "print(first.tolist(), len(tokens), len(ends))\n"
    printed = terminal.run([sys.executable, "-c", code], tmp_path, **environment).stdout
    train = open_shards(place / "data", "train")
    first = train.tokens[: train.document_ends[0]].tolist()
    assert printed.splitlines()[-1] == f"{first} {len(train)} {len(train.document_ends)}"


def test_mistakes_are_one_line(terminal, place, online, tmp_path):
    def refused(match, *arguments):
        done = terminal.scratch("push", *arguments, cwd=place, fails=True, **environment)
        lines = done.stderr.strip().splitlines()
        assert done.returncode == 2 and len(lines) == 1 and match in lines[0], done.stderr

    hub, environment = online
    refused("--dataset", "data", "me/corpus")
    refused("holds no token shards", "nowhere", "me/corpus", "--dataset")
    refused("holds no token shards", ".", "me/corpus", "--dataset")
    shutil.copytree(place / "data", tmp_path / "damaged")
    shard = tmp_path / "damaged" / "train-00000.ds"
    shard.write_bytes(b"\0\0" + shard.read_bytes()[2:-2] + b"\1\1")
    refused("is damaged", tmp_path / "damaged", "me/corpus", "--dataset")
    (tmp_path / "damaged" / "README.md").unlink()
    refused("has no data card", tmp_path / "damaged", "me/corpus", "--dataset")
    assert not hub.files
