"""Every command in the README and the pages beside it works as written, here with flags behind it that cut its size."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
from arenas import battle
from hub_server import TOKEN, running_hub
from safetensors.torch import load_file
from terminal import ROOT, flags
from tiny_stages import forget_accelerate, write_model, write_tokenizer

from training import cli
from training.arena.store import Store, Vote
from training.commands import run
from training.stages.provenance import read_provenance

# The pages whose blocks of commands are run; tests/test_docs.py checks the commands of all pages, and runs none.
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "recipes/README.md",
    "recipes/quickstart/README.md",
    "recipes/arena/README.md",
    "docs/benchmarks.md",
    "docs/what_to_expect.md",
)
TEXT = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


def without_comment(line: str) -> str:
    return re.sub(r"\s+#.*", "", line)


# Each once, in the order of the pages.
COMMANDS = list(dict.fromkeys(without_comment(line) for block in blocks("bash") for line in block.splitlines()))


def command(beginning: str) -> list[str]:
    """The words of the one command that starts so, its program taken from the tests' own environment."""
    (line,) = (line for line in COMMANDS if line.startswith(beginning))
    program, *rest = shlex.split(line)
    return [str(Path(sys.executable).with_name(program)), *rest]


# Where a command is run: here by the test of that name, or, for those that install, by whoever runs the tests.
TESTED = {
    "make quickstart": "test_make_runs_what_the_readme_says",
    "make check": "test_make_runs_what_the_readme_says",
    "make test": "test_make_runs_what_the_readme_says",
    "source .venv/bin/activate": "test_make_runs_what_the_readme_says",
    "pip install": "test_make_runs_what_the_readme_says",
    "scratch run recipes/quickstart": "test_main_job",
    "python -m pytest tests/data/test_loader.py": "test_single_tests",
    "scratch chat": "test_chat",
    "scratch complete": "test_complete",
    "scratch run shakespeare": "test_copy",
    "scratch run recipes/shakespeare": "test_own_text",
    "scratch run recipes/tinystories": "test_own_text",
    "scratch pretrain --depth": "test_depth_and_plot",
    "scratch plot": "test_depth_and_plot",
    "scratch evaluate": "test_evaluate",
    "scratch tokenizer": "test_tokenizers",
    "scratch prepare": "test_prepare",
    "accelerate launch": "test_launch",
    "python -m benchmarks.model": "test_benchmark",
    "python -m benchmarks.startup": "test_startup_benchmark",
    "python -m benchmarks.threads": "test_threads_benchmark",
    "python -m benchmarks.freed_memory": "test_freed_memory_benchmark",
    "python -m benchmarks.serving": "test_serving_benchmark",
    "python -m benchmarks.evaluation": "test_races_of_whole_commands",
    "python -m benchmarks.rollouts": "test_races_of_whole_commands",
    "python -m benchmarks.gpu": "test_gpu_benchmark",
    "python -m pytest tests/fuzz": "test_fuzz",
    "FUZZ_CASES": "test_fuzz",
    "scratch sft": "test_preview",
    "python recipes/arithmetic": "test_arithmetic",
    "scratch run recipes/arithmetic": "test_arithmetic",
    "trl sft": "test_trl",
    "lm_eval": "test_lm_eval",
    "scratch serve": "test_serve",
    "scratch push runs/quickstart": "test_push",
    "mkdir -p runs/arena": "test_arena",
    "scratch arena": "test_arena",
    "scratch dpo": "test_arena",
    "scratch import": "test_doors",
    "scratch export --model runs/gpt2": "test_doors",
    "scratch export --model runs/quickstart": "test_ollama",
    "ollama": "test_ollama",
}


def test_no_command_is_without_a_test():
    for line in COMMANDS:
        assert sum(line.startswith(beginning) for beginning in TESTED) >= 1, line
    assert all(name in globals() for name in TESTED.values())


def test_make_runs_what_the_readme_says():
    """What `make` would run where there is no environment yet: the plain commands, by that environment's programs."""
    # The tests may themselves run below a make, which would speak through these.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VENV", "PYTHON")
    }

    def lines(target: str, *variables: str) -> list[str]:
        arguments = ["make", "-n", target, *variables]
        done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.replace('"', "").splitlines()

    printed = lines("quickstart", "VENV=none")
    (install,) = (line for line in COMMANDS if line.startswith("pip install"))
    assert "none/bin/python -m " + install.replace('"', "") in printed
    assert printed[-1] == "none/bin/scratch run recipes/quickstart"
    assert lines("quickstart")[-1] == ".venv/bin/scratch run recipes/quickstart"  # what `source` activates
    for target in ("check", "test"):
        assert any(line.startswith("none/bin/python -m pytest") for line in lines(target, "VENV=none"))


def test_single_tests(terminal):
    done = terminal.run([*command("python -m pytest tests/data/test_loader.py -k"), "--collect-only", "-q"], ROOT)
    assert "1/" in done.stdout or "1 test collected" in done.stdout


def test_fuzz(terminal):
    """Only the options: the long lane takes hours."""
    done = terminal.run([*command("python -m pytest tests/fuzz"), "--collect-only", "-q", "-k", "recipe"], ROOT)
    assert "tests collected" in done.stdout


def test_main_job(quickstart_run):
    assert "scratch run recipes/quickstart" in COMMANDS  # what the fixture ran
    assert (quickstart_run / "runs" / "quickstart" / "summary.md").is_file()


def test_chat(terminal, quickstart_run):
    question = "Write this Python function.\\\n\\\ndef add(a, b):\n"
    done = terminal.run([*command("scratch chat"), "--max_new_tokens", 4], quickstart_run, input=question)
    assert 0 < len(done.stdout) < 100 and done.stderr == "truncated after 4 tokens (max_new_tokens)\n"


def test_complete(terminal, quickstart_run):
    done = terminal.run([*command("scratch complete"), "--max_new_tokens", 4], quickstart_run)
    assert done.stdout.startswith("def read_") and not done.stderr


def test_copy(terminal, tmp_path):
    terminal.run(command("scratch run shakespeare"), tmp_path)
    assert "runs/mine/pretrain" in (tmp_path / "mine" / "pretrain.yaml").read_text()


@pytest.mark.parametrize("recipe", ["shakespeare", "tinystories"])
def test_own_text(terminal, tmp_path, recipe):
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    lines = [f"Line {number} of a long story about {number % 7} cats." for number in range(2000)]
    (tmp_path / "input.txt").write_text("\n".join(lines))
    (tmp_path / "stories.jsonl").write_text("\n".join(json.dumps({"text": line * 3}) for line in lines))
    small = {
        "tokenizer.vocab_size": 300,
        "model.hidden_size": 32,
        "model.num_hidden_layers": 2,
        "model.num_attention_heads": 2,
        "max_steps": 2,
        "sequence_length": 32,
        "global_batch_size": 4,
        "per_device_train_batch_size": 4,
        "sample_tokens": 4,
    }
    if recipe == "tinystories":
        del small["sample_tokens"]
    done = terminal.run([*command(f"scratch run recipes/{recipe}"), *flags(small)], tmp_path)
    assert f"wrote runs/{recipe}/summary.md" in done.stdout


def test_evaluate(terminal, copy_run):
    place = copy_run("export", "evaluate")
    (place / "notes.txt").write_text("A line of my own.\n" * 200)
    (place / "eval").mkdir()
    pairs = [{"sentence_good": f"These {n} cats.", "sentence_bad": f"This {n} cats."} for n in range(4)]
    records = [pair | {"UID": "determiner_noun_agreement_1"} for pair in pairs]
    (place / "eval" / "blimp.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (place / "eval" / "lambada.jsonl").write_text('{"context": "one cat and one", "continuation": "cat"}\n' * 3)
    terminal.run(command("scratch evaluate --models"), place)
    page = (place / "runs" / "mine" / "evaluate" / "results.md").read_text()
    assert "notes: bits per byte" in page and "blimp_agreement: 1 of 12 of its tasks have data" in page
    done = terminal.run(command("scratch evaluate --compare"), place)
    assert "base → sft" in done.stdout and "preference: accuracy" in done.stdout
    assert (place / "runs" / "quickstart" / "comparison" / "comparison.png").is_file()


def test_tokenizers(terminal, copy_run):
    place = copy_run("tokenizer")
    small = {"vocab_size": 300, "max_bytes": 50_000, "data.max_bytes": 800_000}
    terminal.run([*command("scratch tokenizer --config"), *flags(small)], place)
    done = terminal.run(command("scratch tokenizer --compare"), place)
    assert done.stdout.startswith("A: runs/quickstart/tokenizer (512 tokens; ")
    assert "\nB: runs/single/tokenizer (300 tokens; " in done.stdout and "\nPython source " in done.stdout


def test_prepare(terminal, copy_run):
    place = copy_run("tokenizer")
    texts = [text for _, text in sorted(topics.items())] + ["Too short."]
    (place / "books.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    done = terminal.run(command("scratch prepare"), place)
    assert "too_few_words: 2 (at least 20)" in done.stdout
    manifest = json.loads((place / "runs" / "mine" / "data" / "manifest.json").read_text())
    assert manifest["funnel"]["read"]["documents"] == len(texts)
    with running_hub() as hub:
        online = {"HF_HUB_OFFLINE": None, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        push = [*command("scratch prepare")[:1], "push", "runs/mine/data", "YOUR_NAME/mine", "--dataset"]
        terminal.run(push, place, HF_HOME=str(place / "home"), **online)
        assert "funnel.png" in hub.files["datasets/YOUR_NAME/mine"]


def test_depth_and_plot(terminal, copy_run):
    place = copy_run("tokenizer", "data", "pretrain")
    small = {"depth": 1, "sequence_length": 16, "global_batch_size": 4, "max_steps": 2}
    done = terminal.run([*command("scratch pretrain --depth"), *flags(small)], place)
    assert "pretrain: depth 1\n  model.num_hidden_layers " in done.stdout
    done = terminal.run(command("scratch plot"), place)
    assert "\nquickstart " in done.stdout and "\nsmall " in done.stdout and (place / "plot.png").is_file()


def test_benchmark(terminal):
    small = {"vocab-size": 64, "hidden-size": 32, "layers": 1, "heads": 2, "kv-heads": 2, "seq": 16, "batch": 2}
    small |= {"rounds": 1, "steps": 1, "new-tokens": 0, "matmul-size": 64}
    done = terminal.run([*command("python -m benchmarks.model"), *flags(small), "--memory-vocab-sizes"], ROOT)
    assert json.loads(done.stdout.splitlines()[-1])["training"].keys() == {"transformers Llama", "ours, llama"}


def test_startup_benchmark(terminal):
    done = terminal.run([*command("python -m benchmarks.startup"), "--rounds", "1"], ROOT)
    seconds = json.loads(done.stdout.splitlines()[-1])
    assert "scratch --help" in seconds and all(value > 0 for value in seconds.values())


def test_threads_benchmark(terminal):
    """Only its command line: a run needs an idle machine, and takes minutes beside other tests."""
    done = terminal.run([*command("python -m benchmarks.threads"), "--help"], ROOT)
    assert "--rounds" in done.stdout


def test_freed_memory_benchmark(terminal):
    sizes = ["--hidden-size", 64, "--layers", 1, "--batch-size", 8, "--length", 256, "--rounds", 1]
    done = terminal.run([*command("python -m benchmarks.freed_memory"), *sizes], ROOT)
    medians = json.loads(done.stdout.splitlines()[-1])["medians"]
    assert medians["kept"]["faults"] < medians["returned"]["faults"]


def test_serving_benchmark(terminal):
    words = [*command("python -m benchmarks.serving"), "--answers", "2", "--tokens", "2", "--rounds", "1"]
    rates = json.loads(terminal.run(words, ROOT).stdout.splitlines()[-1])
    assert len(rates) == 6 and all(rate > 0 for rate in rates.values())


def test_races_of_whole_commands(terminal):
    """Only their command lines: a run takes minutes, and one of them needs downloaded data."""
    for line in ("python -m benchmarks.evaluation", "python -m benchmarks.rollouts"):
        assert "--rounds" in terminal.run([*command(line), "--help"], ROOT).stdout


def test_gpu_benchmark(terminal, tmp_path):
    """Only that it starts and says what is left: tests/benchmarks runs its sections."""
    done = terminal.run([*command("python -m benchmarks.gpu"), "--small", "--minutes", "0"], tmp_path, fails=True)
    assert "Attention: not run yet" in done.stdout


def test_launch(terminal, quickstart_run, tmp_path):
    """Two processes on the CPU in the place of eight GPUs, on the shards of the small main job."""
    launch, launcher, *rest = command("accelerate launch")
    run = quickstart_run / "runs" / "quickstart"
    small = {
        "output_dir": tmp_path / "model",
        "data": run / "data",
        "tokenizer": run / "tokenizer",
        "model.hidden_size": 32,
        "model.num_hidden_layers": 2,
        "model.num_attention_heads": 2,
        "max_steps": 2,
        "sequence_length": 32,
        "global_batch_size": 4,
        "per_device_train_batch_size": 1,
        "torch_compile": "false",
        "sample_tokens": 4,
    }
    cpu = {"ACCELERATE_USE_CPU": "true"}
    done = terminal.run([launch, launcher, "--num_processes", 2, *rest, *flags(small)], quickstart_run, **cpu)
    assert "2 x cpu" in done.stdout and (tmp_path / "model" / "model.safetensors").is_file()


def test_python_block(terminal, quickstart_run, without_package):
    (code,) = blocks("python")
    done = terminal.run([sys.executable, "-c", code], quickstart_run, **without_package)
    assert "def add(a, b):" in done.stdout


def test_preview(terminal, quickstart_run):
    done = terminal.run(command("scratch sft"), quickstart_run)
    assert (
        "sft: data format: messages; ignored: name, group\n" in done.stdout and done.stdout.count("<|im_end|>⟧") == 2
    )


def test_arithmetic(terminal, tmp_path, monkeypatch):
    """From nothing to the table, the stages in this process."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    terminal.run(command("python recipes/arithmetic"), tmp_path)
    text = tmp_path / "runs" / "arithmetic" / "sums" / "text.txt"
    text.write_text("".join(text.read_text().splitlines(keepends=True)[:3000]))

    def run_here(stage: str, path: Path, rest: list[str]) -> int:
        forget_accelerate()
        return cli.main([stage, "--config", str(path), *rest])

    small = {"max_steps": 2, "per_device_train_batch_size": 4, "warmup_steps": 0, "limits.chats": 4}
    small |= {"pretrain.global_batch_size": 4, "pretrain.sequence_length": 64, "pretrain.eval_sequences": 2}
    small |= {"pretrain.sample_tokens": 2, "model.hidden_size": 32, "model.num_hidden_layers": 2}
    small |= {"grpo.num_generations": 2, "grpo.max_completion_length": 4, "grpo.logging_steps": 1}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "run_stage", run_here)
    assert cli.main([*command("scratch run recipes/arithmetic")[1:], *flags(small)]) == 0
    forget_accelerate()
    output = tmp_path / "runs" / "arithmetic"
    figures = read_provenance(output / "grpo")["metrics"]
    assert figures["steps"] == 2 and {"reward", "kl"} <= figures.keys() and (output / "grpo" / "reward.png").is_file()
    models = json.loads((output / "evaluate" / "results.json").read_text())["models"]
    assert list(models) == ["base", "sft", "grpo"] and "sums: number" in (output / "summary.md").read_text()


def test_trl(terminal, quickstart_run, without_package, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    for name in ("recipes", "runs"):
        shutil.copytree(quickstart_run / name, place / name)
    terminal.run([*command("trl sft"), "--max_steps", 1, "--warmup_steps", 0], place, **without_package)
    assert (place / "runs" / "more" / "model.safetensors").is_file()


def test_lm_eval(terminal, quickstart_run, without_package):
    done = terminal.run([*command("lm_eval"), "--limit", 4], quickstart_run, **without_package)
    assert "scratch_body_choice" in done.stdout


def test_serve(terminal, quickstart_run, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [port if word == "8000" else word for word in command("scratch serve")]
    server = terminal.start([*words, "--device", "cpu"], quickstart_run, tmp_path / "log")
    try:
        while True:
            assert server.poll() is None, (tmp_path / "log").read_text()
            try:
                with urllib.request.urlopen(f"http://localhost:{port}/health") as answer:
                    assert answer.status == 200
                break
            except OSError:
                time.sleep(0.2)
    finally:
        server.terminate()
        server.wait()


def test_push(terminal, quickstart_run, tmp_path):
    with running_hub() as hub:
        online = {"HF_HUB_OFFLINE": None, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        terminal.run(command("scratch push runs/quickstart"), quickstart_run, HF_HOME=str(tmp_path / "home"), **online)
        assert "model.safetensors" in hub.files["YOUR_NAME/scratch-quickstart"]


def test_ollama(terminal, copy_run):
    """Ollama itself need not be installed; the test looks at the two files that it is given."""
    pytest.importorskip("gguf")
    place = copy_run("export")
    terminal.run(command("scratch export --model runs/quickstart"), place)
    words = shlex.split(next(line for line in COMMANDS if line.startswith("ollama")))
    modelfile = place / words[words.index("-f") + 1]
    weights = modelfile.parent / re.search("^FROM (.*)$", modelfile.read_text(), flags=re.MULTILINE)[1]
    assert words[2] == words[-1] and weights.read_bytes()[:4] == b"GGUF"


def test_arena(terminal, copy_run):
    """The loop, with a few human-made votes between the battles: such a small model gives no answer that parses."""
    place = copy_run("data", "sft", "dpo")
    for line in (line for line in COMMANDS if line.startswith(("mkdir", "scratch arena", "scratch dpo"))):
        words = command(line)
        if line.startswith("mkdir"):
            (place / words[-1]).mkdir(parents=True)
        elif "--prompts" in words:
            done = terminal.run([*words, "--battles", 3, "--max_new_tokens", 4], place)
            assert "3 new battles" in done.stdout and "parses+defines voted on 3 battles (rule)" in done.stdout
        elif line.startswith("scratch dpo"):
            terminal.run([*words, "--max_steps", 1, "--save_steps", 1, "--warmup_steps", 0], place)
        else:
            with Store.open(place / "runs" / "arena" / "votes.sqlite", writes=True) as store:
                first, second = (each.fingerprint for each in store.contestants()[:2])
                for made in (battle(), battle()):
                    store.begin(replace(made, model_a=first, model_b=second))
                    store.vote(Vote(made.id, "parses+defines", "model_a", "rule"))
            terminal.run(words, place)
    assert (place / "runs" / "arena" / "leaderboard.png").is_file()


def test_doors(terminal, tmp_path):
    """From a hub that has a small GPT-2 under the name of the large one."""
    write_model(
        tmp_path / "model", write_tokenizer(tmp_path / "tokenizer"), preset="gpt2", dials={"num_key_value_heads": 2}
    )
    export = [
        sys.executable,
        "-m",
        "training",
        "export",
        "--model",
        "model",
        "--to",
        "gpt2",
        "--output_dir",
        "stock",
    ]
    terminal.run(export, tmp_path)
    with running_hub() as hub:
        hub.files["openai-community/gpt2"] = {file.name: file.read_bytes() for file in (tmp_path / "stock").iterdir()}
        hub.commits["openai-community/gpt2"] = "0" * 40
        online = {"HF_HUB_OFFLINE": None, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
        terminal.run(command("scratch import"), tmp_path, HF_HOME=str(tmp_path / "home"), **online)
    terminal.run(command("scratch export --model runs/gpt2"), tmp_path)
    before, after = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "stock", tmp_path / "runs/gpt2/export")
    )
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
