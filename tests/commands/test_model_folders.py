"""Every kind of model folder and every command: it works, or one line names a command that takes that folder."""

import functools
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN
from messages import refused
from peft import LoraConfig, get_peft_model
from tiny_model import stir
from tiny_stages import flags, write_model, write_tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from training.chat.model import ChatModel
from training.commands import evaluate, export, import_model, push
from training.common.errors import UserError
from training.eval.measures.config import EvaluateConfig
from training.model_io.model_folder import save_model
from training.stages.stage import Stage
from training.tuning.adapters import save_adapter
from training.tuning.pipeline.model import load_model
from training.tuning.pipeline.recipe import inputs_of, parse_recipe

ACCURACY = {"value": 0.9, "stderr": 0.1, "n": 20, "chance": 0.5}
SCORES = {"accuracy": ACCURACY, "f1": 0.8, "precision": 0.7, "recall": 0.6}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """A folder of each kind; names with spaces, because commands are printed."""
    place = tmp_path_factory.mktemp("folders")
    tokenizer = write_tokenizer(place / "tokenizer")
    write_model(place / "pretrain", tokenizer)
    base = AutoModelForCausalLM.from_pretrained(place / "pretrain")
    save_model(base, place / "pretrain", made(place / "pretrain/checkpoints/step-00000002"))
    write_model(place / "sft", tokenizer, "sft", model_name_or_path=str(place / "pretrain"))
    write_classifier(place / "classify", ["ham", "spam"], {"positive": "spam", "test": SCORES, "baseline": SCORES})
    write_classifier(place / "reward", ["score"], {"accuracy": ACCURACY})
    write_as_trl(place / "trl", place / "sft")
    write_resized(place / "resized model", place / "sft")
    write_model(place / "our llama", tokenizer, preset="llama")
    for source, to, folder in (("our llama", "llama", "llama"), ("classify", "qwen3", "stock classifier")):
        export.main(flags({"model": place / source, "to": to, "output_dir": place / folder}))
        for name in ("provenance.json", "recipe.yaml", "README.md"):
            (place / folder / name).unlink()
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    save_adapter(stir(model), str(place / "pretrain"), place / "adapter")
    return place


def made(folder):
    folder.mkdir(parents=True)
    return folder


def write_classifier(folder, labels, metrics):
    start = "model_name_or_path" if folder.name == "reward" else "model"
    data = {} if folder.name == "reward" else {"data": {"name": None, "train": "/home/somebody/train.jsonl"}}
    stage = Stage(folder.name, str(folder), {start: str(folder.parent / "pretrain")} | data, {}, [])
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)}}
    model = stir(AutoModelForSequenceClassification.from_pretrained(folder.parent / "pretrain", **names))
    save_model(model, folder.parent / "pretrain", stage.begin())
    stage.finish(metrics, wrote="model")


def write_as_trl(folder, source):
    """What `trl sft` leaves: the model, TRL's card, the Trainer's arguments, and a checkpoint with its state."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    for place in (folder, folder / "checkpoint-2"):
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        torch.save({}, place / "training_args.bin")
    torch.save({}, folder / "checkpoint-2" / "optimizer.pt")
    (folder / "README.md").write_text("---\nlibrary_name: transformers\nmodel_name: trl\n---\n# Model Card for trl\n")


def write_resized(folder, source):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    tokenizer.add_tokens(["<|new|>", "<|newer|>"])
    model.resize_token_embeddings(len(tokenizer) + 5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def online(hub, monkeypatch):
    for name, value in {"HF_HUB_OFFLINE": False, "ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": True}.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    return hub


def run_export(folder):
    """Export, and run the code of the model card."""
    export.main(flags({"model": folder, "output_dir": "out", "name": "tiny"}))
    code = re.search(r"```python\n(.*?)```", Path("out/README.md").read_text(), re.DOTALL)[1]
    exec(code.replace("YOUR_NAME/tiny", "out"), {})


def run_export_to(folder):
    export.main(flags({"model": folder, "output_dir": "out", "to": "qwen3"}))


def run_export_adapter(folder):
    export.main(flags({"model": "pretrain", "adapter": folder, "output_dir": "out"}))


def run_import(folder):
    import_model.main(flags({"model": folder, "output_dir": "out"}))


def run_push(folder):
    push.main([folder, "me/model"])


def run_evaluate(folder):
    config = EvaluateConfig(output_dir="out", models={"it": folder}, texts={"it": "text"})
    evaluate.check_model("models.it", folder, config)


@functools.cache
def recipe():
    return parse_recipe("sft", {"model_name_or_path": "", "output_dir": "out", "bf16": False, "use_cpu": True}, "sft")


def run_sft(folder):
    """The stage up to its loaded model."""
    inputs_of({"model_name_or_path": folder})
    recipe().model.model_name_or_path = folder
    load_model(recipe())


VERBS = {
    "export": run_export,
    "export --to": run_export_to,
    "export --adapter": run_export_adapter,
    "import": run_import,
    "push": run_push,
    "chat": ChatModel.open,
    "evaluate": run_evaluate,
    "sft": run_sft,
}
USES = {"chat", "evaluate", "sft"}
KINDS = {
    "pretrain": {"export", "export --to"} | USES,
    "pretrain/checkpoints/step-00000002": {"export", "export --to"} | USES,
    "sft": {"export", "export --to"} | USES,
    "trl": {"export", "export --to", "push"} | USES,
    "trl/checkpoint-2": {"export", "export --to"} | USES,
    "resized model": {"export", "export --to"} | USES,
    "llama": {"export", "import"} | USES,
    "classify": {"export", "export --to"},
    "reward": {"export", "export --to"},
    "stock classifier": {"export", "import"},
    "adapter": {"export --adapter"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_command_works_or_names_one_that_does(place, online, kind, capsys):
    for verb, run in VERBS.items():
        if verb == "export --adapter" and kind != "adapter":
            continue
        if verb in KINDS[kind]:
            run(kind)
        else:
            with pytest.raises(UserError) as caught:
                run(kind)
            message = str(caught.value)
            assert "\n" not in message and kind in message, message
            named = {name + " --adapter" * (" --adapter" in message) for name in re.findall(r"`scratch (\w+)", message)}
            named |= {"export"} if "leave 'to' out" in message else set()
            assert named & KINDS[kind], f"{verb} of {kind}: {message}"
        shutil.rmtree("out", ignore_errors=True)


def test_the_state_of_a_trainer_is_not_published(place, online):
    push.main(["trl", "me/trained"])
    published = set(online.files["me/trained"])
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= published
    assert not any("training_args" in name or "checkpoint" in name for name in published)


@pytest.mark.parametrize(
    "refusal, facts",
    [
        (("/api/validate-yaml", 400), ["README.md"]),
        (("/api/models/me/other/commit", 400), ["400", "me/other", "Refused"]),
        (("/api/models/me/other/preupload", 404), ["404", "me/other", "name"]),
        (("/large/", 404), ["me/other", "404"]),
    ],
)
def test_every_answer_of_the_hub_is_one_line(place, online, monkeypatch, refusal, facts):
    monkeypatch.setattr(online, "refusal", refusal)
    with refused(None, *facts):
        push.main(["trl", "me/other"])


def name_base(base: str) -> None:
    file = Path("adapter/adapter_config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": base}))


def test_an_adapter_of_a_local_base_is_not_published(place, online):
    """Its files hold the path of the base, which exists nowhere else."""
    with refused(None, "adapter", "/pretrain'", "scratch export", "adapter_config.json", "README.md"):
        push.main(["adapter", "me/adapter"])
    assert "me/adapter" not in online.files
    name_base("me/base")
    push.main(["adapter", "me/adapter"])
    assert "adapter_config.json" in online.files["me/adapter"]


def test_a_card_that_the_hub_rejects(place, online):
    """PEFT's own card names a base that is a folder."""
    card = Path("adapter/README.md")
    name_base("me/base")
    card.write_text("---\nbase_model: ../runs/base\n---\n")
    with refused(None, card, "adapter_config.json", '"base_model" with value "../runs/base" is not valid'):
        push.main(["adapter", "me/adapter"])


def test_an_exported_reward_model_scores_answers(place):
    export.main(flags({"model": "reward", "output_dir": "out"}))
    inputs = inputs_of({"model_name_or_path": "sft", "reward_model_name_or_path": "out"})
    assert "reward_model" in inputs
    with refused("reward_model_name_or_path", "classify is a classifier"):
        inputs_of({"model_name_or_path": "sft", "reward_model_name_or_path": "classify"})


def test_a_folder_that_only_contains_models(place):
    with refused("model", "pretrain/checkpoints", "step-00000002"):
        export.main(flags({"model": "pretrain/checkpoints", "output_dir": "out"}))
