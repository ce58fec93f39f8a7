"""The command line of `scratch chat`, before any model is opened."""

import subprocess
import sys

import pytest
from terminal import ROOT

from training.commands.chat import read_config
from training.common.errors import UserError


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "command line: 'model' is missing (folder of a chat model"),
        (["--temperature", "0"], "command line: 'model' is missing"),
        (["one", "two"], "unexpected argument 'two'; options are written as --key value"),
        (["one", "--temprature", "0"], "command line: unknown key 'temprature'; did you mean 'temperature'?"),
        (["one", "--sytem", "Speak."], "command line: unknown key 'sytem'; did you mean 'system'?"),
        (["one", "--temperature", "hot"], "command line: 'temperature' takes a number, not 'hot'"),
        (["one", "--temperature=-1"], "command line: 'temperature' must be at least 0, not -1.0"),
        (["one", "--top_k", "1.5"], "command line: 'top_k' takes a whole number, not 1.5"),
        (["one", "--top_p", "0"], "command line: 'top_p' must be above 0, at most 1, not 0.0"),
        (["one", "--max_new_tokens", "0"], "command line: 'max_new_tokens' must be at least 1, not 0"),
        (["one", "--system"], "'--system' needs a value"),
    ],
)
def test_mistakes(arguments, says):
    with pytest.raises(UserError) as error:
        read_config(arguments)
    assert str(error.value).startswith(says)


def test_flags():
    config = read_config(["runs/one", "--system=Be: {brief", "--temperature", "1", "--compare", "3", "--top_k=5"])
    assert (config.model, config.system, config.compare) == ("runs/one", "Be: {brief", "3")  # not read as YAML
    assert read_config(["--temperature", "0", "one"]).model == "one"
    assert (config.temperature, config.top_k, config.top_p, config.seed) == (1.0, 5, None, None)


def test_help_teaches_and_is_quick():
    code = """
import sys
from training.commands.chat import main
try:
    main(["one", "--help"])
except SystemExit as stop:
    assert not stop.code
assert not {"torch", "transformers"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    for word in ("--system ", "--temperature ", "--compare ", "/compare MODEL", "/undo", "Ctrl-C", "generation_config"):
        assert word in done.stdout
