"""A saved directory opens where this package is not installed, with the code it carries along."""

import os
import subprocess
import sys

import pytest
import torch
from tiny_model import SLIDING, build, logits, tokens
from transformers.trainer_pt_utils import LabelSmoother

from modeling_scratch import ScratchForSequenceClassification

# Runs elsewhere: another folder, an empty module cache, and no way to import the package even if it is installed.
ELSEWHERE = """
import sys
from pathlib import Path

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("modeling_scratch", "training"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
try:
    import modeling_scratch
    sys.exit("modeling_scratch can be imported: this proves nothing")
except ModuleNotFoundError:
    pass

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    Trainer,
    TrainingArguments,
)

folder, results = Path(sys.argv[1]), {}
prompt, padded, mask = torch.load(folder / "inputs.pt")
torch.set_grad_enabled(False)
for directory in sorted((folder / "models").iterdir()):
    model, report = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True, output_loading_info=True)
    backbone = AutoModel.from_pretrained(directory, trust_remote_code=True)
    classifier = AutoModelForSequenceClassification.from_pretrained(directory, trust_remote_code=True, num_labels=3)
    tagger = AutoModelForTokenClassification.from_pretrained(directory, trust_remote_code=True, num_labels=3)
    reader = AutoModelForQuestionAnswering.from_pretrained(directory, trust_remote_code=True)
    torch.manual_seed(1)
    results[directory.name] = {
        "module": type(model).__module__,
        "fast": sys.modules[type(model).__module__].ORIGINALS.are_in_place(),
        "problems": [name for names in report.values() for name in names],
        "logits": model(prompt).logits,
        "greedy": model.generate(prompt, max_new_tokens=6, do_sample=False),
        "beams": model.generate(prompt, max_new_tokens=6, num_beams=3),
        "sampled": model.generate(prompt, max_new_tokens=6, do_sample=True),
        "padded": model.generate(padded, attention_mask=mask, max_new_tokens=6, do_sample=False),
        "backbone": backbone(prompt).last_hidden_state,
        "classes": classifier(padded, attention_mask=mask).logits,
        "tags": tagger(prompt).logits,
        "answers": reader(prompt).start_logits,
    }
    model.save_pretrained(folder / "again" / directory.name)
trainer = Trainer(model, TrainingArguments(folder / "trainer", use_cpu=True, label_smoothing_factor=0.1))
results["smoothed loss"] = trainer.compute_loss(model, {"input_ids": prompt, "labels": prompt})
reward = AutoModelForSequenceClassification.from_pretrained(folder / "reward", trust_remote_code=True)
results["reward"] = reward(padded, attention_mask=mask).logits
torch.save(results, folder / "results.pt")
"""


@pytest.fixture(scope="module")
def models():
    return {"scratch": build("scratch"), "gpt2": build("gpt2"), "sliding": build("qwen3", **SLIDING)}


@pytest.fixture(scope="module")
def inputs():
    padded = tokens(2, 9)
    padded[0, :4] = 0
    return tokens(2, 9, seed=1), padded, (padded != 0).long()


@pytest.fixture(scope="module")
def folder(models, inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    for name, model in models.items():
        model.save_pretrained(folder / "models" / name)
    reward = ScratchForSequenceClassification.from_pretrained(folder / "models" / "scratch", num_labels=1)
    reward.save_pretrained(folder / "reward")
    torch.save(inputs, folder / "inputs.pt")
    return folder


@pytest.fixture(scope="module")
def elsewhere(folder, tmp_path_factory):
    away = tmp_path_factory.mktemp("elsewhere")
    environment = os.environ | {"HF_MODULES_CACHE": str(away / "modules"), "HF_HUB_OFFLINE": "1"}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # another number adds up in another order
    # -I: neither the current folder nor PYTHONPATH
    command = [sys.executable, "-I", "-c", ELSEWHERE, str(folder)]
    run = subprocess.run(command, cwd=away, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return torch.load(folder / "results.pt")


def test_the_directory_carries_the_model_and_nothing_else(folder):
    for name in ("scratch", "gpt2", "sliding"):
        assert {path.name for path in (folder / "models" / name).iterdir()} == {
            "config.json",
            "configuration_scratch.py",
            "decoding_scratch.py",
            "generation_config.json",
            "model.safetensors",
            "loss_scratch.py",
            "modeling_scratch.py",
            "originals_scratch.py",
            "prompts_scratch.py",
        }


@pytest.mark.parametrize("name", ["scratch", "gpt2", "sliding"])
def test_same_numbers_without_the_package(name, models, inputs, elsewhere):
    model, found = models[name], elsewhere[name]
    prompt, padded, mask = inputs
    assert found["module"].startswith("transformers_modules.") and found["problems"] == [] and found["fast"]
    assert torch.equal(found["logits"], logits(model, prompt))
    assert torch.equal(found["greedy"], model.generate(prompt, max_new_tokens=6, do_sample=False))
    assert torch.equal(found["beams"], model.generate(prompt, max_new_tokens=6, num_beams=3))
    assert found["sampled"].shape == (2, 15)
    expected = model.generate(padded, attention_mask=mask, max_new_tokens=6, do_sample=False)
    assert torch.equal(found["padded"], expected)
    with torch.no_grad():
        assert torch.equal(found["backbone"], model.model(prompt).last_hidden_state)
    assert found["classes"].shape == (2, 3)
    assert found["tags"].shape == (2, 9, 3) and found["answers"].shape == (2, 9)


def test_label_smoothing_without_the_package(models, inputs, elsewhere):
    """Trainer shifts the labels of classes whose names it knows."""
    prompt, _, _ = inputs
    found = LabelSmoother(0.1)({"logits": logits(models["sliding"], prompt)}, prompt, shift_labels=True)
    torch.testing.assert_close(elsewhere["smoothed loss"], found)


def test_what_was_saved_elsewhere_opens_here(models, inputs, folder, elsewhere):
    for name, model in models.items():
        again = type(model).from_pretrained(folder / "again" / name)
        assert torch.equal(logits(again, inputs[0]), logits(model, inputs[0]))
        assert (folder / "again" / name / "modeling_scratch.py").is_file()


def test_a_reward_model_scores_the_same_elsewhere(inputs, folder, elsewhere):
    _, padded, mask = inputs
    reward = ScratchForSequenceClassification.from_pretrained(folder / "reward")
    with torch.no_grad():
        assert torch.equal(elsewhere["reward"], reward(padded, attention_mask=mask).logits)
