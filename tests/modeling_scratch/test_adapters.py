"""Low-rank adapters of PEFT on every matrix, by its own name for that: `all-linear`."""

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from tiny_model import build, logits, tokens
from transformers import AutoModelForCausalLM

PRESETS = {
    "gpt2": {"preset": "gpt2"},  # tied
    "llama": {"preset": "llama"},
    "qwen3": {"preset": "qwen3", "tie_word_embeddings": True},
    "scratch": {"preset": "scratch"},
}


@pytest.fixture(params=PRESETS)
def folder(request, tmp_path):
    build(**PRESETS[request.param]).save_pretrained(tmp_path / "base")
    return tmp_path


def train(model, steps=2):
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.5)
    for _ in range(steps):
        model(input_ids=tokens(2, 9), labels=tokens(2, 9)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_lora_on_all_linear(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    base, input_ids = AutoModelForCausalLM.from_pretrained(folder / "base"), tokens(2, 9)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    untrained, tied = logits(base, input_ids), base.config.tie_word_embeddings
    torch.manual_seed(0)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert torch.equal(logits(model, input_ids), untrained)

    adapted = {name.split(".lora_")[0].split("base_model.model.")[1] for name in model.state_dict() if ".lora_" in name}
    matrices = {name.removesuffix(".weight") for name in before if "_proj.weight" in name}
    assert adapted == matrices and len(matrices) == 2 * (7 if base.config.mlp_type == "swiglu" else 6)
    assert all((".lora_" in name) == parameter.requires_grad for name, parameter in model.named_parameters())
    train(model)
    for name in before:  # under its name in the wrapped model
        wrapped = name.replace("_proj.", "_proj.base_layer.") if "_proj." in name else name
        assert torch.equal(model.base_model.model.state_dict()[wrapped], before[name]), name
    trained = logits(model, input_ids)
    assert (trained - untrained).abs().max() > 0.1

    model.save_pretrained(folder / "adapter")
    for again in (
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder / "base"), folder / "adapter"),
        AutoPeftModelForCausalLM.from_pretrained(folder / "adapter"),
        AutoModelForCausalLM.from_pretrained(folder / "adapter"),  # transformers finds the base by the adapter's notes
    ):
        assert torch.equal(logits(again, input_ids), trained)

    merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged, input_ids), trained, atol=1e-4, rtol=1e-4)
    assert (merged.lm_head.weight is merged.model.embed_tokens.weight) == tied
    changed = {
        name.removesuffix(".weight") for name, tensor in merged.state_dict().items() if not tensor.equal(before[name])
    }
    assert merged.state_dict().keys() == before.keys() and changed == matrices
    merged.save_pretrained(folder / "merged")
    loaded, report = AutoModelForCausalLM.from_pretrained(folder / "merged", output_loading_info=True)
    assert not any(report.values()) and torch.equal(logits(loaded, input_ids), logits(merged, input_ids))
