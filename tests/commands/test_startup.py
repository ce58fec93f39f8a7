"""Commands answer at once: help, version, mistakes and an up-to-date run import no heavy library."""

import pytest
from light import imports_nothing_heavy

from training.cli import COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command):
    done = imports_nothing_heavy(command, "--help")
    assert done.returncode == 0 and len(done.stdout) > 200 and not done.stderr


@pytest.mark.parametrize("arguments, code", [(["--help"], 0), (["--version"], 0), (["pretrian"], 2), ([], 0)])
def test_questions_to_no_command(arguments, code):
    assert imports_nothing_heavy(*arguments).returncode == code


@pytest.mark.parametrize("command", ["tokenizer", "prepare", "pretrain", "classify", "evaluate", "export", "import"])
def test_mistakes_in_a_recipe(command):
    done = imports_nothing_heavy(command, "--output_dri", "x")
    assert done.returncode == 2
    assert done.stderr.startswith("error: command line: unknown key 'output_dri'; did you mean 'output_dir'?")


@pytest.mark.parametrize("command", ["tokenizer", "prepare", "pretrain", "classify", "evaluate", "export", "import"])
def test_a_printed_recipe(command):
    done = imports_nothing_heavy(command, "--print_config")
    assert done.returncode == 0 and "# output_dir:  (required)" in done.stdout
