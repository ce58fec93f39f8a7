"""Other people's programs open what this package writes. Each test runs the real program."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from terminal import program
from transformers import AutoTokenizer

from modeling_scratch import ScratchForCausalLM

QUESTION = 'Write this Python function.\n\ndef add(a, b):\n    """Add two numbers."""'

TRANSFORMERS = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = "runs/quickstart/export"
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model, report = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
problems = [name for names in report.values() for name in names]
assert type(model).__module__.startswith("transformers_modules.") and not problems, (type(model), problems)
chat = [{"role": "user", "content": sys.argv[1]}]
prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
batch = tokenizer(["def read_lines(path):", "class"], padding=True, padding_side="left", return_tensors="pt")
short = {"max_new_tokens": 8}
torch.manual_seed(0)
with torch.no_grad():
    results = {
        "logits": model(**prompt).logits,
        "greedy": model.generate(**prompt, **short, do_sample=False),
        "sampled": model.generate(**prompt, **short),
        "beams": model.generate(**prompt, **short, do_sample=False, num_beams=3),
        "padded": model.generate(**batch, **short, do_sample=False),
    }
torch.save({"prompt": dict(prompt), "batch": dict(batch), **results}, sys.argv[2])
"""

PIPELINE = """
import json, sys
from transformers import pipeline
generator = pipeline("text-generation", "runs/quickstart/export", trust_remote_code=True)
chat = generator([{"role": "user", "content": sys.argv[1]}], max_new_tokens=8)[0]["generated_text"]
text = generator("def read_", max_new_tokens=8)[0]["generated_text"]
print(json.dumps([chat, text]))
"""

OPEN = """
import sys
from transformers import AutoModelForCausalLM
model, report = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True, output_loading_info=True)
assert not any(report.values()), report
"""


@pytest.fixture(scope="module")
def export(quickstart_run):
    return quickstart_run / "runs" / "quickstart" / "export"


def test_transformers_without_the_package(terminal, quickstart_run, export, without_package, tmp_path):
    command = [sys.executable, "-c", TRANSFORMERS, QUESTION, tmp_path / "results.pt"]
    terminal.run(command, quickstart_run, **without_package)
    found = torch.load(tmp_path / "results.pt")
    model, prompt, batch = ScratchForCausalLM.from_pretrained(export), found["prompt"], found["batch"]
    with torch.no_grad():
        assert torch.equal(found["logits"], model(**prompt).logits)
    for name, options in {"greedy": {}, "beams": {"num_beams": 3}}.items():
        assert torch.equal(found[name], model.generate(**prompt, max_new_tokens=8, do_sample=False, **options)), name
    length = prompt["input_ids"].shape[1]
    assert length < found["sampled"].shape[1] <= length + 8
    assert torch.equal(found["padded"], model.generate(**batch, max_new_tokens=8, do_sample=False))
    # The padded row gets what it would get alone.
    assert not batch["attention_mask"].all()
    alone = batch["input_ids"][1:, batch["attention_mask"][1] == 1]
    continued = model.generate(alone, max_new_tokens=8, do_sample=False)[0, alone.shape[1] :]
    assert torch.equal(found["padded"][1, batch["input_ids"].shape[1] :][: len(continued)], continued)


def test_pipeline(terminal, quickstart_run, without_package):
    done = terminal.run([sys.executable, "-c", PIPELINE, QUESTION], quickstart_run, **without_package)
    chat, text = json.loads(done.stdout.splitlines()[-1])
    assert [message["role"] for message in chat] == ["user", "assistant"] and chat[1]["content"]
    assert text.startswith("def read_") and len(text) > len("def read_")


def test_tokenizer(export):
    """The chat template marks the answer with its end, and nothing else: what `assistant_only_loss` learns from."""
    tokenizer = AutoTokenizer.from_pretrained(export)
    answer = "def add(a, b):\n    return a + b"
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer}]
    encoded = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True)
    marked = [token for token, mark in zip(encoded["input_ids"], encoded["assistant_masks"]) if mark]
    assert tokenizer.decode(marked) == answer + "<|im_end|>"
    prompt = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True)["input_ids"]
    assert encoded["input_ids"][: len(prompt)] == prompt
    assert encoded["assistant_masks"].index(1) == len(prompt)


# On a machine without a GPU; what our own command fills in by itself.
ON_THE_CPU = {"use_cpu": "true", "bf16": "false", "report_to": "none"}
TWO_PROCESSES = "recipes/accelerate/cpu.yaml"


@pytest.mark.parametrize("verb, processes", [("sft", 1), ("dpo", 1), ("sft", 2)])
def test_trl(terminal, quickstart_run, export, without_package, tmp_path, verb, processes):
    """The stock program, on our recipe, trains on from the exported directory, and its own output opens again."""
    overrides = ON_THE_CPU | {
        "model_name_or_path": "runs/quickstart/export",
        "output_dir": tmp_path / verb,
        "max_steps": 2,
        "warmup_steps": 0,
        "per_device_train_batch_size": 4,
    }
    launcher, environment = [], without_package
    if processes > 1:
        overrides |= {"train_sampling_strategy": "sequential", "logging_steps": 1}
        launcher, environment = ["--accelerate_config", TWO_PROCESSES], environment | {"ACCELERATE_USE_CPU": "true"}
    arguments = [verb, "--config", f"recipes/quickstart/{verb}.yaml", *launcher, *flag_pairs(overrides)]
    printed = terminal.train_with_trl(arguments, quickstart_run, **environment)
    assert "Training completed" in printed
    if processes > 1:
        assert f"'num_tokens': '{count_tokens(quickstart_run, 2 * 4 * processes)}'" in printed
    if verb == "dpo":
        adapter = load_file(tmp_path / verb / "adapter_model.safetensors")
        moved = [name for name, weight in adapter.items() if "lora_B" in name and weight.any()]
        assert len(moved) == 2 * 7  # of both layers: query, key, value, output; gate, up, down
    else:
        terminal.run([sys.executable, "-c", OPEN, tmp_path / verb], tmp_path, **without_package)
        before, after = (load_file(folder / "model.safetensors") for folder in (export, tmp_path / verb))
        assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)


def flag_pairs(options: dict[str, object]) -> list[object]:
    return [part for key, value in options.items() for part in (f"--{key}", value)]


def count_tokens(place: Path, number: int) -> int:
    """Of the first instructions, as the recipe of sft has them."""
    run = place / "runs" / "quickstart"
    lines = (run / "data" / "instructions" / "train.jsonl").read_text().splitlines()[:number]
    tokenizer = AutoTokenizer.from_pretrained(run / "export")
    rendered = (tokenizer.apply_chat_template(json.loads(line)["messages"])["input_ids"] for line in lines)
    return sum(min(len(ids), 256) for ids in rendered)


def test_two_processes_of_ours_learn_what_one_does(terminal, quickstart_run, tmp_path):
    """`accelerate launch -m training sft` with half the batch each: the same losses, and weights to 1e-6."""
    options = {"max_steps": 2, "warmup_steps": 0, "logging_steps": 1, "bf16": "false", "report_to": "none"}
    options |= {"train_sampling_strategy": "sequential", "optim": "sgd", "learning_rate": 0.1}
    two = [program("accelerate"), "launch", "--config_file", TWO_PROCESSES, "-m", "training", "sft"]
    for name, batch, command in (("one", 8, [sys.executable, "-m", "training", "sft"]), ("two", 4, two)):
        own = {"output_dir": tmp_path / name, "per_device_train_batch_size": batch}
        recipe = ["--config", "recipes/quickstart/sft.yaml", *flag_pairs(options | own)]
        done = terminal.run([*command, *recipe], quickstart_run, ACCELERATE_USE_CPU="true")
        assert done.stdout.count("sft: wrote ") == 1
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    for mine, theirs in zip(one[:2], two[:2], strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5) and mine["num_tokens"] == theirs["num_tokens"]
    assert one[1]["num_tokens"] == count_tokens(quickstart_run, 16)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(before[name], after[name], rtol=0, atol=1e-6) for name in before)
    assert not torch.equal(
        before["lm_head.weight"],
        load_file(quickstart_run / "runs/quickstart/pretrain/model.safetensors")["lm_head.weight"],
    )


def test_lm_eval(terminal, quickstart_run, without_package, tmp_path):
    """The stock program, from the files that `evaluate` leaves, gives the figures that `evaluate` gave."""
    run = quickstart_run / "runs" / "quickstart"
    tasks = ["scratch_body_choice", "scratch_docstring_choice"]
    command = [program("lm_eval"), "--model", "hf"]
    command += ["--model_args", f"pretrained={run / 'export'},trust_remote_code=True"]
    command += ["--include_path", run / "evaluate" / "tasks", "--tasks", ",".join(tasks)]
    command += ["--device", "cpu", "--batch_size", "16", "--output_path", tmp_path / "out"]
    terminal.run(command, tmp_path, **without_package)
    (file,) = (tmp_path / "out").rglob("results_*.json")
    stock = json.loads(file.read_text())["results"]
    own = json.loads((run / "evaluate" / "results.json").read_text())["models"]["dpo"]["figures"]["tasks"]
    for task in tasks:
        for metric in ("acc", "acc_norm"):
            assert own[task][metric]["value"] == stock[task][f"{metric},none"]
            assert own[task][metric]["stderr"] == pytest.approx(stock[task][f"{metric}_stderr,none"])
            assert own[task][metric]["n"] > 10
