"""recipes/arithmetic with the sums that its script writes, and its stages in two processes."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import ROOT, flags, program
from tiny_stages import write_data, write_model, write_tokenizer

from training.eval.measures.records import read_questions
from training.stages.provenance import read_provenance
from training.tuning.reward_functions import REWARDS

SCRIPT = ROOT / "recipes" / "arithmetic" / "sums.py"
SUMS = Path("runs", "arithmetic", "sums")
SMALL = {"max_steps": 2, "per_device_train_batch_size": 4, "warmup_steps": 0, "use_cpu": "true", "bf16": "false"}
GENERATION = {"num_generations": 2, "max_completion_length": 4, "logging_steps": 1}

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    place = tmp_path_factory.mktemp("outputs")
    (place / "recipes").symlink_to(ROOT / "recipes")
    write_data(place / "data", write_tokenizer(place / "tokenizer"))
    write_model(place / "pretrain", place / "tokenizer")
    subprocess.run([sys.executable, SCRIPT], cwd=place, check=True)
    return place


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def threes(texts: list[str]) -> set[tuple[int, ...]]:
    """The numbers of questions of three numbers, in order of size."""
    asked = (re.match(r"(\d+) [+-] (\d+) [+-] (\d+) =", text) for text in texts)
    return {tuple(sorted(map(int, question.groups()))) for question in asked if question}


def test_the_sums_are_right_and_rewarded(outputs):
    for name, number in {"sft": 1000, "grpo": 5000, "test": 1000}.items():
        records = lines(outputs / SUMS / f"{name}.jsonl")
        columns = {key: [record[key] for record in records] for key in records[0]}
        questions = [prompt[0]["content"] for prompt in columns["prompt"]]
        assert len(set(questions)) == number
        right = columns.pop("completion")
        for reward in ("number", "format"):
            assert set(REWARDS[reward](completions=right, **columns)) == {1.0}
            paid = REWARDS[reward](completions=[right[-1], *right[:-1]], **columns)
            assert (sum(paid) < 0.1 * len(paid)) == (reward == "number")
        assert [eval(question.rstrip(" =")) for question in questions] == list(map(int, columns["answer"]))
        worked = sum("=" in words[0]["content"] for words in right) / number
        assert 0.45 < worked < 0.55
    text = (outputs / SUMS / "text.txt").read_text().splitlines()
    assert all(eval(line.replace("=", "==")) for line in text[:2000]) and len(text) == 150_000


def test_what_is_asked_in_the_end_stands_nowhere_else(outputs):
    asked = threes([record["prompt"][0]["content"] for record in lines(outputs / SUMS / "test.jsonl")])
    asked |= threes((outputs / SUMS / "test.txt").read_text().splitlines())
    learnt = threes((outputs / SUMS / "text.txt").read_text().splitlines())
    for name in ("sft", "grpo"):
        learnt |= threes([record["prompt"][0]["content"] for record in lines(outputs / SUMS / f"{name}.jsonl")])
    assert len(asked) > 1_000 and len(learnt) > 30_000 and not learnt & asked


def test_the_same_sums_each_time(outputs, tmp_path):
    subprocess.run([sys.executable, SCRIPT, "--output_dir", tmp_path], check=True)
    for file in (outputs / SUMS).iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_lines_of_text_are_turns_of_a_conversation(place):
    """The template of the recipe writes a sum as the base has read it, and closes it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("pretrain")
    tokenizer.chat_template = (ROOT / "recipes" / "arithmetic" / "chat_template.jinja").read_text()
    for record in lines(place / SUMS / "test.jsonl")[:50]:
        asked = tokenizer.apply_chat_template(record["prompt"], add_generation_prompt=True, tokenize=False)
        whole = tokenizer.apply_chat_template(record["prompt"] + record["completion"], tokenize=False)
        assert asked == "\n" + record["prompt"][0]["content"]
        assert whole == f"{asked} {record['completion'][0]['content']}<|im_end|>"


def test_questions_from_elsewhere(tmp_path):
    """The line of docs/tuning.md that converts them gives what `scratch evaluate` asks."""
    page = (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith("python -c"))
    (tmp_path / "simple_arithmetic.jsonl").write_text('{"context": "25 - 759 =", "continuation": " -734"}\n')
    subprocess.run(line.replace("python", shlex.quote(sys.executable), 1), shell=True, cwd=tmp_path, check=True)
    (question,) = read_questions(str(tmp_path / "other.jsonl"), "chats.other.file")
    assert question.prompt == [{"role": "user", "content": "25 - 759 ="}] and question.columns["answer"] == " -734"


REWARD_RECIPE = {
    "trust_remote_code": True,
    "gradient_checkpointing": False,
    "datasets": [{"path": "json", "data_files": {"train": "data/preferences/train.jsonl"}}],
}


def test_two_processes_of_ours(terminal, place):
    """One voice, one output; the samples, and the held-out pairs, of both processes are there once each."""
    (place / "reward.yaml").write_text(json.dumps(REWARD_RECIPE))
    grpo = SMALL | GENERATION | {"per_device_train_batch_size": 2, "output_dir": "grpo"}
    held_out = {"test_split_size": 0.4, "eval_strategy": "epoch", "per_device_eval_batch_size": 2}
    runs = {
        "grpo": ["grpo", "--config=recipes/arithmetic/grpo.yaml", *flags(grpo | {"model_name_or_path": "pretrain"})],
        "reward": ["reward", "--config=reward.yaml", *flags(SMALL | held_out | {"model_name_or_path": "pretrain"})],
    }
    runs["reward"].append("--output_dir=reward")
    (place / "runs.json").write_text(json.dumps(runs))
    launch = [program("accelerate"), "launch", "--config_file", "recipes/accelerate/cpu.yaml"]
    program_of_both = ROOT / "tests" / "helpers" / "launched.py"
    done = terminal.run([*launch, program_of_both, "runs.json"], place, ACCELERATE_USE_CPU="true")
    for name in runs:
        assert done.stdout.count(f"{name}: wrote {name} ") == 1
    codes = json.loads((place / "runs.done").read_text())
    assert all(ended["code"] == 0 and ended["processes"] == 2 for ended in codes.values())
    assert read_provenance("reward")["metrics"]["accuracy"]["n"] == 3
    samples = lines(place / "grpo" / "samples.jsonl")
    assert [sample["step"] for sample in samples] == [1] * 4 + [2] * 4  # two of each process
    printed, _ = done.stdout.split("grpo: wrote ")
    assert printed.count("step 1/2: loss ") == 1 and printed.count("step 2/2: loss ") == 1
    prompts = [json.dumps(sample["prompt"]) for sample in samples]
    assert prompts[0] == prompts[1] != prompts[2] == prompts[3]
