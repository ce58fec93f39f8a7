"""sft and dpo as stages: what TRL trains is saved as every other model, and an interrupted run goes on."""

import dataclasses
import errno
import json
import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from messages import refused
from terminal import ROOT
from tiny_stages import TRAINING, flags, write_data, write_model, write_tokenizer
from transformers import AutoModelForCausalLM, Trainer

from training.commands import dpo as dpo_command
from training.commands import grpo as grpo_command
from training.commands import sft as sft_command
from training.common.errors import UserError, disk_full
from training.common.signals import Interrupted
from training.stages.provenance import digest, read_provenance, staging_dir
from training.stages.stage import Stage
from training.tuning.keys.trl_options import CONFIGURATIONS, options_of
from training.tuning.pipeline.recipe import (
    RUNTIME_KEYS,
    SAVING_KEYS,
    one_line_errors,
    parse_recipe,
    read_recipe,
    runtime_keys_of,
    target_modules,
)
from training.tuning.pipeline.resume import newest_checkpoint, train

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    place = tmp_path_factory.mktemp("outputs")
    write_data(place / "data", write_tokenizer(place / "tokenizer"))
    write_model(place / "pretrain", place / "tokenizer")
    return place


def arguments(kind: str, **options: object) -> list[str]:
    data = [{"path": "json", "data_files": {"train": f"data/{kind}/train.jsonl"}}]
    required = {"model_name_or_path": "pretrain", "output_dir": "new", "datasets": json.dumps(data)}
    return flags(required | TRAINING | {"learning_rate": "1e-2", "logging_steps": 1} | options)


def sft(**options: object) -> None:
    from training.commands.sft import main

    main(arguments("instructions", assistant_only_loss="true", **options))


def dpo(**options: object) -> None:
    from training.commands.dpo import main

    main(arguments("preferences", **options))


def weights(folder: str) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_sft_leaves_a_model_directory(place, capsys):
    sft()
    trained = weights("new")
    assert not same(trained, weights("pretrain"))
    config = json.loads((place / "new" / "config.json").read_text())
    assert config["use_cache"] is True and config["dtype"] == "float32"
    for file in ("tokenizer.json", "chat_template.jinja", "generation_config.json", "loss.png", "modeling_scratch.py"):
        assert (place / "new" / file).is_file()
    record = read_provenance("new")
    assert record["stage"] == "sft" and record["metrics"]["steps"] == 2 and record["metrics"]["loss"] > 0
    assert set(record["inputs"]) == {"model", "data/instructions/train.jsonl"}
    capsys.readouterr()
    sft()
    assert "up to date, skipped" in capsys.readouterr().out


def test_a_chat_template_of_ones_own(place, capsys):
    """It goes into the output; another one makes another output; one that is not there is told first."""
    template = (ROOT / "recipes" / "arithmetic" / "chat_template.jinja").read_text()
    for text in (template, template + "{# changed #}"):
        (place / "lines.jinja").write_text(text)
        sft(chat_template_path="lines.jinja", restart="true")
        assert "up to date" not in capsys.readouterr().out
        assert (place / "new" / "chat_template.jinja").read_text().rstrip() == text.rstrip()
    with pytest.raises(UserError, match="'chat_template_path': no such file or folder: nowhere.jinja"):
        sft(chat_template_path="nowhere.jinja", output_dir="other")


def test_dpo_merges_its_adapter(place):
    dpo(use_peft="true", lora_r=4, lora_target_modules="all-linear")
    assert weights("pretrain").keys() == weights("new").keys()  # no trace of the adapter
    assert changed() and all("proj" in name for name in changed())
    assert {path.name for path in (place / "new" / "adapter").iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
    }


def test_an_interrupted_run_goes_on(place, monkeypatch):
    """From the newest whole checkpoint: the weights are those of a run that nobody interrupted."""
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 3}
    sft(output_dir="straight", **options)

    save = Trainer._save_checkpoint

    def die_in_the_third(self, *rest):
        save(self, *rest)
        if self.state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_checkpoint", die_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            sft(**options)
    trainer = staging_dir("new") / "trainer"
    (trainer / "checkpoint-3" / "trainer_state.json").write_text("{")  # as if the disk had run full on its last file
    assert newest_checkpoint(trainer) == str(trainer / "checkpoint-2")
    spent = read_provenance(staging_dir("new"))["seconds"]

    for changed in ({"learning_rate": "2e-2"}, {"load_best_model_at_end": "true"}):
        (key,) = changed
        with refused("output_dir", "new.partial", f"{key}: ", "--restart"):
            sft(**options | changed)
    assert (trainer / "checkpoint-2").is_dir()
    data = [{"path": "json", "data_files": {"train": "./data/instructions/train.jsonl"}}]
    sft(**options | {"save_steps": 3, "save_total_limit": 1, "datasets": json.dumps(data), "report_to": "none"})
    assert same(weights("new"), weights("straight"))
    assert read_provenance("new")["seconds"] >= spent > 0
    steps = [json.loads(line)["step"] for line in (place / "new" / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == [1, 2, 3, 4]


def test_a_signal_saves_the_step_and_says_so(place, monkeypatch):
    sft(output_dir="straight", max_steps=3)
    step, done = Trainer.training_step, []

    def signal_in_the_second(self, *rest, **more):
        done.append(1)
        if len(done) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "training_step", signal_in_the_second)
        with pytest.raises(Interrupted, match="after step 2, saved; rerun the same command") as stopped:
            sft(max_steps=3)
    assert stopped.value.signum == signal.SIGTERM and len(done) == 2
    assert (staging_dir("new") / "trainer" / "checkpoint-2" / "optimizer.pt").is_file()
    sft(max_steps=3)
    assert same(weights("new"), weights("straight"))


@pytest.mark.parametrize("steps", [3, 4])  # an epoch has 4
def test_a_run_killed_after_its_last_step_trains_no_further(place, monkeypatch, capsys, steps):
    """The Trainer alone would train one more step before it looks at their number."""
    options = {"max_steps": steps, "save_strategy": "steps", "save_steps": 2}
    sft(output_dir="straight", **options)
    with monkeypatch.context() as patch:
        patch.setattr("training.tuning.pipeline.training._save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sft(**options)
    sft(**options)
    assert f"checkpoint-{steps}" in capsys.readouterr().out and same(weights("new"), weights("straight"))
    logged = [json.loads(line) for line in (place / "new" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if "loss" in line] == list(range(1, steps + 1))


def test_a_full_disk_is_no_mistake_in_the_recipe():
    """datasets, on a full disk of its cache, fails once more when it closes its files."""
    with pytest.raises(ValueError, match="closed file") as caught, one_line_errors("recipe"):
        try:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        finally:
            raise ValueError("I/O operation on closed file")
    assert disk_full(caught.value)


def test_a_mistake_before_the_first_checkpoint_leaves_nothing_to_protect(tmp_path):
    """Such as an unknown reward function: the corrected recipe starts over without being asked to."""

    def fail(**_: object) -> None:
        raise UserError("a mistake")

    stage = Stage("sft", str(tmp_path / "new"), {"seed": 0}, {}, [])
    (stage.begin() / "trainer").mkdir()
    (stage.folder / "trainer" / "log").write_text("half")
    trainer = SimpleNamespace(args=SimpleNamespace(output_dir=str(stage.folder / "trainer"), world_size=1), train=fail)
    trainer.accelerator, trainer.add_callback, trainer.is_world_process_zero = None, lambda _: None, lambda: True
    with pytest.raises(UserError):
        train(stage, trainer)
    Stage.note_end("mistake", "")
    Stage("sft", str(tmp_path / "new"), {"seed": 1}, {}, []).begin()


def test_keys_that_cannot_change_the_weights():
    known = {key for stage in CONFIGURATIONS for key in options_of(stage)}
    assert RUNTIME_KEYS | SAVING_KEYS < known
    assert "save_steps" in runtime_keys_of({}) and "logging_steps" in runtime_keys_of({})
    assert "save_steps" not in runtime_keys_of({"load_best_model_at_end": True})
    for key in ("streaming", "dataset_streaming"):  # whose order depends on the number of workers
        assert runtime_keys_of({key: False}) - runtime_keys_of({key: True}) == {"dataloader_num_workers"}


def test_no_checkpoint_no_resume(tmp_path):
    assert newest_checkpoint(tmp_path / "nowhere") is None
    (tmp_path / "checkpoint-10").mkdir()
    assert newest_checkpoint(tmp_path) is None
    for step in (9, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
        state = '{"global_step": 9, "max_steps": 100}'
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
        (tmp_path / f"checkpoint-{step}" / "rng_state_0.pth").touch()
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / "checkpoint-100" / "rng_state.pth").touch()
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")
    (tmp_path / "checkpoint-9" / "rng_state_1.pth").touch()
    assert newest_checkpoint(tmp_path, world_size=2) == str(tmp_path / "checkpoint-9")
    (tmp_path / "checkpoint-9" / "rng_state.pth").touch()
    for damaged in ("{}", '{"global_step": "9", "max_steps": 100}', "{"):
        (tmp_path / "checkpoint-100" / "trainer_state.json").write_text(damaged)
        assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-9")


def test_an_evaluation_split(place):
    sft(test_split_size=0.25, eval_strategy="steps", eval_steps=1)
    lines = [json.loads(line) for line in (place / "new" / "metrics.jsonl").read_text().splitlines()]
    assert any("eval_loss" in line for line in lines)
    with pytest.raises(UserError, match="the data have no split 'test'"):
        sft(output_dir="other", eval_strategy="steps")


def test_a_folder_of_data_is_an_input(place):
    """Its files are the splits, by their names."""
    from training.commands.sft import main

    records = Path("data/instructions/train.jsonl").read_text().splitlines(keepends=True)
    Path("asked").mkdir()
    for split, lines in {"train": records[:5], "test": records[5:]}.items():
        Path("asked", f"{split}.jsonl").write_text("".join(lines))
    given = {"model_name_or_path": "pretrain", "output_dir": "new", "dataset_name": "asked", "eval_strategy": "epoch"}
    main(flags(TRAINING | given))
    assert read_provenance("new")["inputs"]["asked"] == digest("asked")
    assert any("eval_loss" in line for line in Path("new/metrics.jsonl").read_text().splitlines())


def test_what_depends_on_the_processor_is_filled_in():
    required = ["--model_name_or_path=m", "--output_dir=o", "--dataset_name=d"]
    recipe = parse_recipe("sft", *read_recipe("sft", required, ""))
    assert recipe.training.report_to == [] and isinstance(recipe.training.bf16, bool)
    values, where = read_recipe("sft", [*required, "--bf16=false"], "")
    recipe = parse_recipe("sft", values, where)
    assert recipe.training.bf16 is False
    assert values == {"model_name_or_path": "m", "output_dir": "o", "dataset_name": "d", "bf16": False}


@pytest.mark.parametrize(
    "options, key, fact",
    [
        ({"optim": "adamw_8bit"}, "optim", "bitsandbytes"),
        ({"optim": "galore_adamw_layerwise"}, "optim", "galore_torch"),
        ({"activation_offloading": "true"}, "activation_offloading", "GPU"),
        ({"chat_template_path": "./gone"}, "chat_template_path", "no such file or folder: gone"),
        ({"attn_implementation": "sage"}, "attn_implementation", "sage"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_type", "min_lr"),
        ({"log_level": "loud"}, "log_level", "no 'loud'"),
        ({"accelerator_config": "{split: true}"}, None, "TypeError: "),
        ({"report_to": "wandb"}, "report_to", "wandb is not installed; pip install wandb"),
        ({"report_to": "wandbe"}, "report_to", "did you mean 'wandb'"),
        ({"report_to": True}, "report_to", "no 'True'"),
        ({"report_to": {}}, "report_to", "no '{}'"),
    ],
)
def test_what_cannot_be_built_is_said_before_training(place, options, key, fact):
    """On one line, and nothing is written; the Trainer would find optimizer and schedule after it has begun."""
    with refused(key, fact):
        sft(**options)
    assert not list(Path().glob("new*"))


def test_names_of_modules_for_an_adapter():
    assert target_modules(["q_proj"]) == target_modules("q_proj") == ["q_proj"]
    assert target_modules(["q_proj", "v_proj"]) == ["q_proj", "v_proj"] and target_modules(None) is None
    assert target_modules("all-linear") == target_modules(["all-linear"]) == "all-linear"
    assert target_modules([r".*_proj"]) == target_modules(r".*_proj") == ".*_proj"


def test_a_run_shorter_than_its_logging_steps(place, capsys):
    """Its last step is logged and drawn, one module of a list is adapted, and the logs of a tracker are kept."""
    adapter = {"use_peft": "true", "lora_target_modules": "[q_proj]"}
    sft(logging_steps=100, report_to="tensorboard", eval_steps=3, **adapter)
    printed = capsys.readouterr().out
    losses = [json.loads(line) for line in (place / "new" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in losses if "loss" in record] == [2]
    assert "loss.png" in printed and (place / "new" / "loss.png").is_file()
    assert "sft: 'eval_steps' has no effect without eval_strategy: steps" in printed
    assert any("q_proj" in name for name in changed()) and list((place / "new" / "runs").rglob("events*"))


def changed() -> set[str]:
    before, after = weights("pretrain"), weights("new")
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_datasets_that_are_none():
    for datasets in ("many", "[many]", "{path: json}"):
        with refused("datasets", "many" if "many" in datasets else "path"):
            read_recipe("sft", ["--model_name_or_path=m", "--output_dir=o", f"--datasets={datasets}"], "")


@pytest.mark.parametrize(
    "command, configuration, keys",
    [(sft_command, "SFTConfig", 9), (dpo_command, "DPOConfig", 3), (grpo_command, "GRPOConfig", 6)],
    ids=["sft", "dpo", "grpo"],
)
def test_help_begins_with_what_a_person_needs(capsys, command, configuration, keys):
    """Before TRL's three hundred options: the data, and the keys that matter with the defaults they really have."""
    import trl

    with pytest.raises(SystemExit):
        command.main(["--help"])
    printed = capsys.readouterr().out
    own, theirs = printed.split("\nData\n", 1)
    assert own.startswith(f"scratch {command.__name__.rpartition('.')[2]}: ") and "--lora_target_modules" in theirs
    own = own.split("The keys that matter most")[1]
    configurations = (getattr(trl, configuration), trl.ModelConfig)
    defaults = {field.name: field.default for config in configurations for field in dataclasses.fields(config)}
    found = dict(re.findall(r"([a-z_0-9]+): ([\d.e-]+|false)", own))
    assert len(found) >= keys
    for name, value in found.items():
        assert defaults[name] == (False if value == "false" else float(value)), name


@pytest.mark.parametrize("stage", CONFIGURATIONS)
def test_without_a_table_of_the_installed_versions_trl_is_asked(stage, monkeypatch, capsys):
    monkeypatch.setattr("training.tuning.keys.trl_options.installed_versions", lambda: {"trl": "2.0"})
    given = ["--model_name_or_path=m", "--output_dir=o", "--dataset_name=d", "--num_train_epochs=2"]
    values, _ = read_recipe(stage, given, "")
    assert isinstance(values["num_train_epochs"], float)
    with refused("lerning_rate", "did you mean 'learning_rate'?"):
        read_recipe(stage, [*given, "--lerning_rate=1"], "")
    with pytest.raises(SystemExit):
        read_recipe(stage, ["--help"], "About.")
    assert capsys.readouterr().out.startswith("About.\n\nAll of TRL's fields")


def test_the_recipes_in_the_documentation(tmp_path):
    """Every key of docs/tuning.md is one of TRL's; its second recipe is more keys for the first."""
    page = (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "sft.yaml").write_text("".join(blocks))
    recipe = parse_recipe("sft", *read_recipe("sft", ["--config", str(tmp_path / "sft.yaml")], ""))
    assert recipe.training.packing and recipe.model.use_dora and recipe.model.lora_target_modules == "all-linear"
    assert recipe.datasets.datasets[0].data_files == {"train": "instructions.jsonl"} and len(blocks) == 2
