"""`scratch complete`: text from the command line and from a pipe, samples, seeds, and what is rejected."""

import io
import sys

import pytest
from tiny_stages import write_model, write_tokenizer

from training.cli import main


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    place = tmp_path_factory.mktemp("my models")  # a path with a space
    return str(write_model(place / "base", write_tokenizer(place / "tokenizer")))


@pytest.fixture
def complete(base, capsys, monkeypatch):
    def complete(*arguments: object, stdin: bytes = b"", terminal: bool = False, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        sys.stdin.isatty = lambda: terminal
        assert main(["complete", base, *map(str, arguments), "--max_new_tokens", "8"]) == code
        return capsys.readouterr()

    return complete


def test_text_from_the_command_line_and_from_a_pipe(complete):
    given, said = complete("def read_", "--temperature", 0)
    assert given.startswith("def read_") and given.endswith("\n") and len(given) > 11 and not said
    for piped in (b"def read_", b"def read_\n", b"def read_\r\n"):
        assert complete("--temperature", 0, stdin=piped)[0] == given
    assert complete("--temperature", 0, stdin=b"def read_\n\n")[0].startswith("def read_\n")
    assert complete("--temperature", 0, stdin=b"caf\xe9")[0].startswith("caf\ufffd")


def test_samples(complete):
    drawn = [complete("the cat", "--samples", 3, "--seed", seed, "--temperature", 2)[0] for seed in (1, 1, 2)]
    parts = drawn[0].split("-" * 15 + "\n")
    assert len(set(parts)) == 3 and all(part.startswith("the cat") for part in parts)
    assert drawn[0] == drawn[1] != drawn[2]
    assert "'samples'" in complete("the cat", "--samples", 2, "--temperature", 0, code=2)[1]


def test_mistakes(complete):
    for arguments, key in ((["a"] * 2, "'a'"), (["a", "--samples", 0], "'samples'"), (["word " * 500], "'text'")):
        out, error = complete(*arguments, code=2)
        assert key in error and len(error.splitlines()) == 1 and not out
    assert "'text' is not UTF-8" in complete("h\udce9llo", code=2)[1]
    assert "'text' is missing" in complete(terminal=True, code=2)[1]
