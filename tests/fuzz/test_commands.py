"""Every command on odd keys, values and recipes: exit code 0, 1 or 2, one line of error, nothing left behind."""

import contextlib
import copy
import importlib
import os
import resource
import shutil
import signal
import stat
import traceback
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from damage import TEXTS, VALUES, edited_value, put_odd_files, written
from data_readers import ROWS, SFT, VOTE
from guarded import BYTES, LANE, SECONDS
from hypothesis import given, settings
from hypothesis import strategies as st
from reader import put
from stage_readers import EVALUATE, PREPARE, put_folder, put_pretrained, put_stock
from tiny_stages import MODEL, write_data, write_model, write_text, write_tokenizer

from training.chat.commands import COMMANDS as CHAT_COMMANDS
from training.cli import COMMANDS, main
from training.commands import attention, run, serve
from training.machine.resources import Machine
from training.stages.recipe import STAGES
from training.stages.stage import Stage
from training.tuning.keys.trl_options import CONFIGURATIONS, options_of


def of_file(file: str) -> dict[str, Any]:
    """Keys of a tuning stage with data from a file."""
    return SFT | {"datasets": [{"path": "json", "data_files": file}], "use_cpu": True}


# A valid command of each: its words, and its keys.
VALID: dict[str, tuple[list[str], dict[str, Any]]] = {
    "run": (["recipes"], {}),
    "tokenizer": ([], {"output_dir": "new", "vocab_size": 280, "data": {"path": "text.txt"}}),
    "prepare": ([], PREPARE),
    "pretrain": (
        [],
        {
            "output_dir": "new",
            "data": "data",
            "tokenizer": "tokenizer",
            "model": MODEL,
            "sequence_length": 16,
            "max_steps": 2,
        }
        | {"global_batch_size": 4, "per_device_train_batch_size": 4, "bf16": False, "optimizer": {"name": "adamw"}},
    ),
    "sft": ([], of_file("data/instructions/train.jsonl")),
    "kto": ([], of_file("answers.jsonl")),
    **dict.fromkeys(("reward", "dpo", "orpo"), ([], of_file("data/preferences/train.jsonl"))),
    **dict.fromkeys(("grpo", "rloo"), ([], of_file("questions.jsonl") | {"reward_funcs": ["number"]})),
    "classify": (
        [],
        {"output_dir": "new", "model": "model", "data": dict.fromkeys(("train", "validation", "test"), "rows.jsonl")},
    ),
    "evaluate": ([], {key: EVALUATE[key] for key in ("output_dir", "models", "data")}),
    "export": ([], {"output_dir": "new", "model": "model", "to": "qwen3"}),
    "import": ([], {"output_dir": "new", "model": "stock"}),
    "push": (["exported", "me/mine"], {"private": True}),
    "chat": (["model"], {"max_new_tokens": 2, "temperature": 0.5}),
    "complete": (["model", "Who?"], {"max_new_tokens": 2, "temperature": 0.5}),
    "arena": (["store.sqlite", "--import", "votes.jsonl"], {"leaderboard": False}),
    "serve": (["model"], {"port": 0}),
    "plot": (["pretrained"], {"x": "step", "y": "loss", "output": "plot.svg"}),
    "watch": (["pretrained"], {}),
    "attention": (["model"], {"output_dir": "new", "tokens": 16}),
    "plan": (["1B on 8 x H100"], {"max_steps": 1000, "sharding": "fsdp2"}),
    "report": (["runs"], {}),
}
LINES = [
    "Who?",
    *(f"/{name} 3" for name in CHAT_COMMANDS),
    "/set temperature 0.5",
    "/save file",
    "/save new.jsonl",
    "/x",
    "/",
]


def put_inputs() -> None:
    """Write what the valid commands read into the current folder."""
    put_folder()
    put_odd_files(Path("."))
    put("rows.jsonl", ROWS)
    put("votes.jsonl", [VOTE])
    write_text(Path("text.txt"))
    write_data(Path("data"), write_tokenizer(Path("tokenizer")))
    write_model(Path("model"), Path("tokenizer"))
    put_stock()
    put("answers.jsonl", [{"prompt": "Who?", "completion": "It.", "label": bool(number % 2)} for number in range(8)])
    put("questions.jsonl", [{"question": "2 + 2 =", "answer": 4}] * 8)
    write_model(Path("exported"), Path("tokenizer"), stage="export")
    put("exported/README.md", "---\nlicense: mit\n---\nA model.\n")
    put_pretrained("pretrained")
    put_pretrained("runs/pretrain")


SLOW = 5  # of so many cases of a reader, one of a command
MACHINE = Machine("processor", 1, 1, 0.0, 2**33, False, None, 1e10)
ENDLESS = ("complete", "samples")  # that many are written, however long it takes
ADD = ("chat", "arena")  # they add to files that the user names: conversations, a store of votes


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("inputs") / "place"
    place.mkdir()
    with contextlib.chdir(place):
        put_inputs()
        yield place


def keys_of(verb: str) -> list[str]:
    """The dotted keys of a command."""
    if verb in CONFIGURATIONS:
        return list(options_of(verb))
    module = importlib.import_module(COMMANDS[verb][0])
    own = (value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__)
    configs = (value for value in own if getattr(value, "__name__", "").endswith("Config"))
    return list(_keys(getattr(module, "CONFIG", None) or next(configs)))


def _keys(cls: type) -> Iterator[str]:
    hints = typing.get_type_hints(cls)
    for field in fields(cls):
        nested = next(
            (kind for kind in (hints[field.name], *typing.get_args(hints[field.name])) if is_dataclass(kind)), None
        )
        yield field.name
        if nested:
            yield from (f"{field.name}.{key}" for key in _keys(nested))


class Begun(SystemExit):
    """The stage has checked everything, and would begin."""


def in_a_process(arguments: list[str], typed: str) -> tuple[int, str]:
    """The exit code of a command, and what it printed. A stage ends where it would begin to work."""
    with open("../printed", "w+b") as printed, open("../typed", "w+b") as keys:
        keys.write(typed.encode("utf-8", "surrogatepass"))
        keys.seek(0)
        if not (child := os.fork()):
            code = 70
            try:
                for source, target in ((keys, 0), (printed, 1), (printed, 2)):
                    os.dup2(source.fileno(), target)
                code = _end(arguments)
            except SystemExit as stop:
                code = stop.code or 0
            except BaseException:
                os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        printed.seek(0)
        return code, printed.read().decode("utf-8", "replace")


def _end(arguments: list[str]) -> int:
    import io
    import sys

    sys.stdin, sys.stdout = io.TextIOWrapper(io.FileIO(0)), io.TextIOWrapper(io.FileIO(1, "w"), write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), errors="backslashreplace", write_through=True)
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + BYTES,) * 2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)

    def stop(*_: object) -> None:
        raise Begun(0)

    Stage.begin = serve.introduce = attention.open_folder = stop
    run.run_stage = lambda *_: 0
    run.measure = lambda: MACHINE
    return main(arguments)


@st.composite
def commands(draw: Any, verb: str) -> tuple[list[str], bytes]:
    """The words of a command and the recipe that it may name: a valid one with edits, and odd words."""
    words, values = VALID[verb]
    words, values = list(words), copy.deepcopy(values)
    if draw(st.integers(0, 2)):
        values = draw(edited_value(values))
    given = {}
    for _ in range(draw(st.integers(0, 2))):
        key = draw(st.sampled_from([key for key in keys_of(verb) if (verb, key) != ENDLESS]))
        value = draw(st.sampled_from(VALUES))
        given[key] = value
    recipe = b""
    if verb in STAGES and draw(st.booleans()):
        for key, value in given.items():
            *parents, leaf = key.split(".")
            holder = values
            for parent in parents:
                holder = holder.setdefault(parent, {}) if isinstance(holder, dict) else {}
            if isinstance(holder, dict):
                holder[leaf] = value
        recipe = written(values, "yaml")
        words += ["--config", "recipe.yaml"]
    else:
        given = (values if isinstance(values, dict) else {}) | given
        words += [f"--{key}={as_text(value)}" for key, value in given.items()]
    for _ in range(draw(st.sampled_from((0, 0, 0, 1)))):
        odd = draw(st.sampled_from((*TEXTS, "--", "--=x", "--config", "--restart=x", "--print_config", "-h", "--seed")))
        words.insert(draw(st.integers(0, len(words))), odd)
    return [verb, *(word.replace("\0", "") for word in words)], recipe


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else written(value, "json").decode("utf-8", "surrogatepass")


def state_of(folder: Path) -> dict[Path, tuple[int, int] | None]:
    """Everything below a folder; of a file its size and the time of its last change."""
    return {
        path: (status.st_size, status.st_mtime_ns) if stat.S_ISREG((status := path.lstat()).st_mode) else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("verb", COMMANDS)
def test_one_line_for_odd_options(verb, place):
    @settings(LANE, max_examples=LANE.max_examples // SLOW)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        arguments, recipe = data.draw(commands(verb))
        put("recipe.yaml", recipe)
        typed = data.draw(st.lists(st.sampled_from((*LINES, *TEXTS)), max_size=3)) if verb == "chat" else []
        before = state_of(place)
        code, printed = in_a_process(arguments, "\n".join(typed))
        errors = [line for line in printed.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in printed and code in (0, 1, 2), (code, printed[-3000:])
        if verb != "chat":  # which reports each mistaken line
            assert len(errors) == bool(code), printed
        after = state_of(place)
        if code and verb not in ADD:
            assert after == before
        for path in set(after) - set(before):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    check()
