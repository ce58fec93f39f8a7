"""One model in several places: on processor and disk by `device_map`, in two processes by the parallel plan."""

import sys

import pytest
import torch
from tiny_model import ARCHITECTURES, build, logits, tokens
from transformers import AutoModelForCausalLM

GREEDY = {"max_new_tokens": 6, "do_sample": False}


@pytest.fixture(scope="module")
def models():
    return {name: build(**options) for name, options in ARCHITECTURES.items()}


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, model in models.items():
        model.save_pretrained(folder / name)
    return folder


# --- device_map ---


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}], ids=str)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_device_map(models, folder, name, device_map):
    placed = AutoModelForCausalLM.from_pretrained(folder / name, device_map=device_map)
    assert torch.equal(logits(placed, tokens(2, 9)), logits(models[name], tokens(2, 9)))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_does_not_fit_stays_on_disk(models, folder, name):
    """`auto` splits by the names of layers; parameters of the model itself, as the shortcut's, go with it."""
    model = models[name]
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    placed = AutoModelForCausalLM.from_pretrained(folder / name, device_map="auto", max_memory={"cpu": int(0.8 * size)})
    assert {"cpu", "disk"} <= set(placed.hf_device_map.values())
    assert {parameter.device.type for parameter in placed.parameters()} == {"cpu", "meta"}
    assert torch.equal(logits(placed, tokens(2, 9)), logits(model, tokens(2, 9)))
    assert torch.equal(placed.generate(tokens(2, 9), **GREEDY), model.generate(tokens(2, 9), **GREEDY))


# --- Tensor parallel ---

# Runs in each of two processes. What is compared is gathered first: parameters and gradients are in two halves.
PROCESS = """
import os, sys, torch
from pathlib import Path
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig
import modeling_scratch

folder, input_ids = Path(sys.argv[1]), torch.load(Path(sys.argv[1]) / "input_ids.pt")
results = {}
for name in sys.argv[2:]:
    plan = DistributedConfig(tp_plan="auto")
    model = AutoModelForCausalLM.from_pretrained(folder / name, distributed_config=plan)
    greedy = model.generate(input_ids, max_new_tokens=6, do_sample=False)
    output = model(input_ids, labels=input_ids)
    output.loss.backward()
    parameters = dict(model.named_parameters())
    spread = {key: value for key, value in parameters.items() if hasattr(value, "full_tensor")}
    gradients = {key: value.grad for key, value in parameters.items()}
    results[name] = {
        "logits": output.logits.detach(),
        "loss": output.loss.detach(),
        "greedy": greedy,
        "halved": sorted(key for key, value in spread.items() if value.to_local().numel() * 2 == value.numel()),
        "gradients": gradients | {key: gradients[key].full_tensor() for key in spread},
    }
    model.save_pretrained(folder / "again" / name)
torch.save(results, folder / f"{os.environ['RANK']}.pt")
torch.distributed.destroy_process_group()
"""
# gpt2 and qwen3 are tied here; qwen3, scratch and sliding normalise the heads.
PARALLEL = ("gpt2", "llama", "qwen3", "scratch", "sliding")


@pytest.fixture(scope="module")
def processes(terminal, folder):
    """What each of the two processes found, and the folder with what they saved."""
    torch.save(tokens(2, 9), folder / "input_ids.pt")
    (folder / "process.py").write_text(PROCESS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    terminal.run([*command, folder / "process.py", folder, *PARALLEL], folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", PARALLEL)
def test_tensor_parallel(models, folder, processes, name):
    model, input_ids = models[name], tokens(2, 9)
    model.zero_grad()
    expected = model(input_ids, labels=input_ids)
    expected.loss.backward()
    matrices = {key for key, value in model.named_parameters() if value.ndim == 2} - {"model.embed_positions.weight"}
    for found in (process[name] for process in processes):
        assert matrices <= set(found["halved"])
        torch.testing.assert_close(found["logits"], expected.logits.detach(), atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(found["loss"], expected.loss.detach())
        assert torch.equal(found["greedy"], model.generate(input_ids, **GREEDY))
        for key, parameter in model.named_parameters():
            torch.testing.assert_close(found["gradients"][key], parameter.grad, atol=2e-5, rtol=1e-4, msg=key)
    saved = AutoModelForCausalLM.from_pretrained(folder / "again" / name)
    assert torch.equal(logits(saved, input_ids), logits(model, input_ids))
