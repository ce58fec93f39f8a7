"""Adapters that our stages leave beside the model: stock PEFT takes them, and `scratch export` merges them again."""

import json
import shutil
import sys

import pytest
import torch
from hub_server import TOKEN, running_hub
from tiny_stages import TRAINING, flags, forget_accelerate, write_data, write_model, write_tokenizer
from transformers import AutoModelForCausalLM

from training.cli import main

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


STOCK = """
import json, sys, torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

base, first, second, hub = sys.argv[1:]
load = lambda name: AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True)
same = lambda one, other: all(torch.equal(one[name], other[name]) for name in other) and one.keys() == other.keys()
logits = lambda model: model(torch.arange(4, 20)[None]).logits.detach()
close = lambda one, other: (one - other).abs().max() < 1e-5 * other.abs().max()

model = PeftModel.from_pretrained(load(base), f"{first}/adapter")
assert type(model.get_base_model()).__module__.startswith("transformers_modules.")
alone = logits(AutoPeftModelForCausalLM.from_pretrained(f"{second}/adapter", trust_remote_code=True))
one = logits(model)
model.load_adapter(f"{second}/adapter", "other")
model.set_adapter("other")
assert torch.equal(logits(model), alone) and not close(alone, one)
model.set_adapter("default")
assert torch.equal(logits(model), one)
with model.disable_adapter():
    assert torch.equal(logits(model), logits(load(base)))

merged = PeftModel.from_pretrained(load(base), f"{first}/adapter").merge_and_unload()
assert same(merged.state_dict(), load(first).state_dict()) and close(logits(merged), one)

PeftModel.from_pretrained(load(base), f"{first}/adapter").push_to_hub(hub)
again = PeftModel.from_pretrained(load(base), hub)
assert torch.equal(logits(again), one)
"""


def test_stock_peft_takes_what_sft_leaves(terminal, tmp_path, monkeypatch, without_package):
    """In a process without this package: load, swap, switch off, merge (to the bit our merged model), push, pull."""
    monkeypatch.chdir(tmp_path)
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    write_data(tmp_path / "data", tokenizer)
    write_model(tmp_path / "base", tokenizer)
    for name, more in {"first": {}, "second": {"seed": 1, "use_dora": "true"}}.items():
        assert main(["sft", *sft(name, **more)]) == 0
        forget_accelerate()
        card = (tmp_path / name / "adapter" / "README.md").read_text()
        assert "library_name: peft" in card and "base_model" not in card  # the Hub refuses a base that is a folder
    with running_hub() as hub:
        online = {"HF_HUB_OFFLINE": None, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        environment = without_package | online | {"HF_HOME": str(tmp_path / "home")}
        terminal.run([sys.executable, "-c", STOCK, "base", "first", "second", "me/adapter"], tmp_path, **environment)
        for file in ("adapter_config.json", "README.md"):  # as the remedy tells
            file = tmp_path / "first/adapter" / file
            file.write_text(file.read_text().replace('"base"', '"me/base"'))
        terminal.scratch(
            "push", "first/adapter", "me/ours", cwd=tmp_path, **(online | {"HF_HOME": str(tmp_path / "h")})
        )
        for name in ("me/adapter", "me/ours"):
            assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= set(hub.files[name])


def sft(output_dir: str, **more: object) -> list[str]:
    data = [{"path": "json", "data_files": {"train": "data/instructions/train.jsonl"}}]
    lora = {"use_peft": "true", "lora_r": 4, "lora_target_modules": "all-linear", "learning_rate": "1e-2"}
    required = {"model_name_or_path": "base", "output_dir": output_dir, "datasets": json.dumps(data)}
    return flags(required | TRAINING | lora | more)


def test_an_adapter_is_merged_into_its_base_alone(tmp_path, monkeypatch, capsys):
    """By `scratch export --adapter`: the adapter of a stage, and one that stock PEFT saved anywhere."""
    monkeypatch.chdir(tmp_path)
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    write_data(tmp_path / "data", tokenizer)
    for name, dials in {"base": {}, "wide": {"hidden_size": 48}, "deep": {"num_hidden_layers": 1}}.items():
        write_model(tmp_path / name, tokenizer, dials=dials, called=name)
    assert main(["sft", *sft("tuned")]) == 0
    forget_accelerate()
    shutil.copytree("tuned/adapter", "elsewhere")  # away from the provenance of the stage

    def export(adapter: str, base: str, *more: str) -> str:
        """The error, without the progress bars of libraries."""
        assert main(["export", f"--model={base}", f"--adapter={adapter}", "--output_dir=new", *more]) in (0, 2)
        return "".join(line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))

    tuned = AutoModelForCausalLM.from_pretrained("tuned").state_dict()
    for adapter in ("tuned/adapter", "elsewhere"):
        assert not export(adapter, "base")
        merged = AutoModelForCausalLM.from_pretrained("new").state_dict()
        assert merged.keys() == tuned.keys() and all(torch.equal(merged[name], tuned[name]) for name in tuned)
        card = (tmp_path / "new" / "README.md").read_text()
        assert ("| sft |" in card) == (adapter == "tuned/adapter")
        shutil.rmtree("new")
    other = AutoModelForCausalLM.from_pretrained("base")
    other.lm_head.weight.data += 1  # it learned more
    other.save_pretrained("base")
    line = "error: 'adapter': {} was trained on other weights than those in {} (its base was base); give"
    for adapter in ("tuned/adapter", "elsewhere"):
        for base in ("base", "wide"):
            assert export(adapter, base).startswith(line.format(adapter, base))
    (tmp_path / "elsewhere" / "base.json").unlink()
    (tmp_path / "base").rename("gone")
    for base in ("wide", "deep"):
        assert export("elsewhere", base).startswith(f"error: 'adapter': elsewhere is not an adapter for {base} (")
    (tmp_path / "gone").rename("base")
    assert export("data", "base") == "error: 'adapter': data holds no adapter (adapter_config.json)"
    assert export("elsewhere", "base", "--to=qwen3").startswith("error: 'adapter' and 'to' cannot be combined")
    (tmp_path / "elsewhere" / "adapter_config.json").write_text("{}")
    assert export("elsewhere", "base").startswith("error: 'adapter': elsewhere/adapter_config.json is damaged")
    assert not (tmp_path / "new").exists() and not (tmp_path / "new.partial").exists()
    assert main(["sft", *sft("again", model_name_or_path="tuned/adapter")]) == 2
    said = "error: 'model_name_or_path': tuned/adapter is an adapter; merge it into its base with `scratch export"
    assert said in capsys.readouterr().err
