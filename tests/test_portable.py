"""What runs without Linux: our modules and whole commands, in a simulation of Windows and of macOS.

tests/helpers/simulated says what is simulated. Nothing here ran on those systems.
"""

import ast
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINUX_ONLY = {f"training.sandbox.{name}" for name in ("jail", "kernel", "restrictions", "scratch", "server")}
SYSTEMS = ("win32", "darwin")
FILES = [file for folder in ("modeling_scratch", "training") for file in sorted((ROOT / folder).rglob("*.py"))]

IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
from training.common.errors import UserError
from training.sandbox import run_python
for allow in (False, True):
    try:
        run_python("1 + 1", allow_unisolated=allow)
    except UserError as error:
        print(error)
"""
RUN_ALL = """
import json, sys
from training.cli import main
for arguments in json.loads(sys.argv[1]):
    code = main(arguments)
    sys.stdout.flush()
    if code:
        sys.exit(f"{arguments} ended with {code}")
"""
TEXT = "The café on the corner — where the fox 狐 drinks — opens at {}. Then {} guests ask for {} cups of tea.\n"
MODEL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
PRETRAIN = [
    "pretrain",
    *("--data=run/data", "--tokenizer=run/tokenizer", "--output_dir=run/pretrain", f"--model={json.dumps(MODEL)}"),
    *("--sequence_length=32", "--global_batch_size=4", "--save_steps=2", "--eval_steps=2", "--logging_steps=1"),
    *("--keep_last=1", "--sample_prompts=[The]"),
]
COMMANDS = [
    ["tokenizer", "--data.path=text", "--vocab_size=300", "--output_dir=run/tokenizer"],
    ["prepare", "--data.path=text", "--tokenizer=run/tokenizer", "--output_dir=run/data", "--workers=2"],
    [*PRETRAIN, "--max_steps=4"],
    [*PRETRAIN, "--max_steps=8"],  # replaces a finished output, and reads its checkpoint
    ["evaluate", "--models={base: run/pretrain}", "--data=run/data", "--output_dir=run/evaluate"],
    ["export", "--model=run/pretrain", "--output_dir=run/export", "--evaluation=run/evaluate"],
    ["complete", "run/export", "The fox 狐", "--max_new_tokens=4"],
    [
        "sft",
        *("--model_name_or_path=run/pretrain", "--trust_remote_code=true", "--output_dir=run/sft", "--max_steps=2"),
        *("--datasets=[{path: json, data_files: {train: chats.jsonl}, split: train}]", "--max_length=32"),
        *("--save_steps=1", "--save_total_limit=1", "--attn_implementation=eager"),
    ],
    ["chat", "run/sft", "--max_new_tokens=4"],
    ["watch", "run/pretrain"],
    ["attention", "run/pretrain", "--tokens=8"],
    ["plan", "1B on 8 x H100"],
    ["run", "recipes", "--restart"],  # starts the stages as processes
]
CHAT = [{"role": "user", "content": "Where is the café?"}, {"role": "assistant", "content": "On the corner — 狐."}]


def simulate(system: str, script: str, *arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess:
    environment = os.environ | {
        "SIMULATED": system,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests/helpers/simulated"), str(ROOT)]),
        "PYTHONIOENCODING": "cp1252",
        "PYTHONWARNDEFAULTENCODING": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, input=stdin.encode("cp1252"))


def module_names() -> list[str]:
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in FILES}
    return sorted(names - {"training.__main__"})


def test_every_module_is_imported_on_windows():
    """macOS has all that Windows has."""
    names = [name for name in module_names() if name not in LINUX_ONLY]
    done = simulate("win32", IMPORT_ALL, *names, cwd=ROOT)
    assert not done.returncode, done.stderr.decode()[-2000:]
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 2 and all("(Linux on x86-64 or arm64 is needed)" in line for line in lines)


def calls(name: str) -> list[tuple[Path, ast.Call]]:
    """All calls of a function or method of this name in our files, those that run on Linux only left out."""
    nodes = [(path, node) for path in FILES if "sandbox" not in path.parts for node in ast.walk(parse(path))]
    found = [(path, node) for path, node in nodes if isinstance(node, ast.Call)]
    return [(path, call) for path, call in found if getattr(call.func, "attr", getattr(call.func, "id", "")) == name]


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_text_files_name_their_encoding():
    """The default of Windows is not UTF-8."""
    texts = [each for each in calls("open") if any(is_text_mode(word) for word in each[1].args[:2])]
    texts += [each for each in calls("read_text") if isinstance(each[1].func, ast.Attribute)] + calls("write_text")
    assert len(texts) > 50
    unnamed = [each for each in texts if "encoding" not in {word.arg for word in each[1].keywords}]
    assert not [f"{path}: {ast.unparse(call)}" for path, call in unnamed]


def is_text_mode(word: ast.expr) -> bool:
    return isinstance(word, ast.Constant) and isinstance(word.value, str) and set(word.value) <= set("rwaxt+")


def test_doubles_are_made_on_the_cpu():
    """Apple's GPUs have no float64."""
    doubles = [ast.unparse(call) for _, call in calls("double")]
    assert doubles and all(call.endswith(".cpu().double()") for call in doubles), doubles


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_whole_commands(system, tmp_path):
    (tmp_path / "text").mkdir()
    for file in range(40):
        lines = [TEXT.format(file, line, file * line) for line in range(20)]
        (tmp_path / "text" / f"{file:02}.txt").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "chats.jsonl").write_text(f"{json.dumps({'messages': CHAT})}\n" * 8, encoding="utf-8")
    (tmp_path / "recipes").mkdir()
    recipe = "output_dir: run/tokenizer\nvocab_size: 280\ndata: {path: text}\n"
    (tmp_path / "recipes" / "tokenizer.yaml").write_text(recipe, encoding="utf-8")
    done = simulate(system, RUN_ALL, json.dumps(COMMANDS), cwd=tmp_path, stdin="Where is the café?\n")
    said = done.stdout.decode("cp1252")
    assert not done.returncode, said[-2000:] + done.stderr.decode()[-4000:]
    assert "The fox ?" in said  # its encoding lacks that character
    assert not list(tmp_path.glob("run/*.partial")) and not list(tmp_path.glob("run/*.replaced"))
