"""`scratch export --to web`: what the folder and the single file hold, and which models are rejected."""

import base64
import gzip
import json
import re
from html.parser import HTMLParser

import gguf
import pytest
from browser_runtime import CONTENTS, pin_archives
from messages import refused
from terminal import ROOT
from tiny_stages import MODEL, flags, write_model, write_tokenizer

from training.browser_page import folder as browser_folder
from training.browser_page import runtime
from training.commands.export import main

ENGINE = {f"engine/{name}": content for name, content in CONTENTS.items()}


class Blocks(HTMLParser):
    """The script elements of a page by their ids, and the content of its policy."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.policy, self.requests = {}, None, "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "script":
            self.open = attributes.get("id", "script")
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]
        if "src" in attributes or (tag == "link" and attributes.get("href") != "data:,"):
            self.requests.append(tag)

    def handle_data(self, data):
        if self.open:
            self.found[self.open] = data

    def handle_endtag(self, tag):
        self.open = None


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    write_tokenizer(place / "tokenizer")
    write_model(place / "chat", place / "tokenizer", "sft", preset="llama")
    write_model(place / "base", place / "tokenizer", preset="qwen3")
    return place


@pytest.fixture
def export(models, tmp_path, monkeypatch):
    """Export one of the models to a page, with archives that take no time."""
    packed = pin_archives(monkeypatch, tmp_path / "packed")

    def run(model, output="web", **options):
        given = {"model": models / model, "output_dir": tmp_path / output, "name": "tiny", "to": "web"}
        main(flags(given | {"runtime": packed} | options))
        return tmp_path / output

    return run


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_folder(export, capsys):
    folder = export("chat")
    records = {"README.md", "provenance.json", "recipe.yaml"}
    assert files_of(folder) == {"index.html", "tiny-F32.gguf", "LICENSES.txt", *ENGINE, *records}
    assert {name: (folder / name).read_bytes() for name in ENGINE} == ENGINE
    assert f"next: python -m http.server --directory {folder}, and open" in capsys.readouterr().out
    assert "`index.html` runs it in the browser" in (folder / "README.md").read_text()

    page = Blocks((folder / "index.html").read_text())
    about = json.loads(page.found["about"])
    assert all((folder / place).is_file() for place in about["files"].values())
    assert about["bytes"] == (folder / "tiny-F32.gguf").stat().st_size
    assert about["context"] == about["load"]["n_ctx"] == MODEL["max_position_embeddings"]
    assert about["page"]["model"] == "tiny" and about["page"]["chats"]
    assert "{{" not in (folder / "index.html").read_text().split("<script")[0]
    assert page.requests == [] and "default-src 'none'" in page.policy
    assert re.findall(r"\S+:", page.policy.replace("data:", "").replace("blob:", "")) == []  # no host


def test_settings_are_those_of_the_model(export, models):
    file = models / "chat" / "generation_config.json"
    before = json.loads(file.read_text())
    shown = {}
    for name, settings in {
        "drawn": {"do_sample": True, "temperature": 0.5, "top_k": 7, "repetition_penalty": 1.5, "max_new_tokens": 9},
        "greedy": {"do_sample": False, "temperature": None, "max_new_tokens": None},
        "open": {"do_sample": True, "temperature": None, "top_k": None, "max_new_tokens": None},
    }.items():
        file.write_text(json.dumps(before | settings))
        shown[name] = json.loads(Blocks((export("chat", name) / "index.html").read_text()).found["about"])
    file.write_text(json.dumps(before))
    every = {"temperature": 0.5, "top_k": 7, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.5, "max_tokens": 9}
    assert shown["drawn"]["page"]["settings"] == every
    greedy = {"temperature": 0, "top_k": 50, "repetition_penalty": 1.0, "max_tokens": MODEL["max_position_embeddings"]}
    assert shown["greedy"]["page"]["settings"] == every | greedy
    assert shown["open"]["page"]["settings"] == every | greedy | {"temperature": 1.0}  # transformers' defaults


def test_a_base_model_continues_a_text(export):
    folder = export("base")
    about = json.loads(Blocks((folder / "index.html").read_text()).found["about"])
    assert not about["page"]["chats"] and not about["page"]["template"]
    assert "New text" in (folder / "index.html").read_text()
    assert gguf.GGUFReader(folder / "tiny-F32.gguf").get_field("tokenizer.chat_template") is None


def test_the_single_file(export, capsys):
    folder, expected = export("chat", single_file=True), export("chat", "folder")
    assert files_of(folder) == {"tiny.html", "README.md", "provenance.json", "recipe.yaml"}
    assert f"next: open {folder / 'tiny.html'} in a browser" in capsys.readouterr().out
    page = Blocks((folder / "tiny.html").read_text())
    about = json.loads(page.found["about"])
    inside = {
        key: gzip.decompress(base64.b64decode(page.found[place.removeprefix("#")], validate=True))
        for key, place in about["files"].items()
    }
    assert inside == {
        "module": b'const worker = new Worker(code, {type:"classic"});',
        "wasm": CONTENTS[runtime.WASM],
        "compat_worker": CONTENTS[runtime.COMPAT_WORKER],
        "compat_wasm": CONTENTS[runtime.COMPAT_WASM],
        "model": (expected / "tiny-F32.gguf").read_bytes(),
    }
    assert page.requests == [] and "'self'" not in page.policy


def test_licences_are_inside(export):
    own = (ROOT / "LICENSE").read_text()
    text = (export("chat") / "LICENSES.txt").read_text()
    assert text.endswith(own)
    for name in ("Xuan Son NGUYEN", "The ggml authors", "Niels Lohmann", "Rich Felker", "Dawn", "Emscripten authors"):
        assert name in text
    single = (export("chat", "single", single_file=True) / "tiny.html").read_text()
    assert "Xuan Son NGUYEN" in single and "TERMS AND CONDITIONS FOR USE" in single


def test_the_place_of_the_archives_does_not_change_the_page(export, tmp_path, capsys):
    export("chat")
    export("chat", runtime=tmp_path / "nowhere")
    assert "is up to date, skipped" in capsys.readouterr().out


@pytest.mark.parametrize(
    "key, fact, options",
    [
        ("runtime", "nowhere has no wllama-wllama-3.13.0.tgz", {"runtime": "nowhere"}),
        ("single_file", "--to web", {"to": "gguf", "single_file": True, "runtime": "null"}),
        ("precision", "--to gguf and web", {"to": "scratch", "precision": "f16", "runtime": "null"}),
        ("held_out", "name an output of `scratch prepare`", {"precision": "f16"}),
    ],
)
def test_what_cannot_be_written_leaves_nothing(export, tmp_path, key, fact, options):
    with refused(key, fact):
        export("chat", **options)
    assert not (tmp_path / "web").exists() and not (tmp_path / "web.partial").exists()


def test_a_model_too_large_for_one_file(export, tmp_path, monkeypatch):
    monkeypatch.setattr(browser_folder, "LIMIT", 50_000)
    with refused("single_file", "the model takes 0 MB", "leave it out to write a folder"):
        export("chat", single_file=True)
    assert not (tmp_path / "web").exists()
    export("chat")


def test_a_model_that_llama_cpp_lacks(export, models):
    write_model(models / "soft", models / "tokenizer", preset="llama", dials={"final_logit_softcapping": 30.0})
    with refused("to", "final_logit_softcapping"):
        export("soft")
