"""`scratch plan`: tables, JSON, plots; recipes, presets, config.json and requests; questions at a keyboard."""

import functools
import json
import sys

import pytest
from light import imports_nothing_heavy
from messages import refused
from tiny_model import SIZES

from modeling_scratch import ScratchConfig
from training.commands import plan
from training.planner import calibration


def planned(capsys, *arguments: str) -> dict:
    plan.main([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def test_a_recipe_is_planned_as_it_is(capsys):
    found = planned(capsys, "recipes/quickstart")
    assert found["tokens"] == 830 * 4096
    assert found["parameters"]["total"] == 3_344_832
    assert found["layout"]["device"]["name"] == "CPU" and found["fits"]


def test_a_recipe_on_other_devices(capsys):
    found = planned(capsys, "recipes/124m", "on", "2 x H100")
    assert found["layout"]["devices"] == 2 and found["layout"]["sharding"] == "ddp"
    assert found["shape"]["global_batch"] == 512


def test_the_batch_of_a_recipe_is_shared(capsys):
    found = planned(capsys, "recipes/quickstart", "4 x 4090")
    assert (found["shape"]["global_batch"], found["shape"]["micro_batch"]) == (16, 4)


def test_a_config_json(capsys, tmp_path):
    ScratchConfig.from_preset("llama", **SIZES).save_pretrained(tmp_path)
    found = planned(capsys, str(tmp_path / "config.json"), "CPU", "--max_steps", "10", "--global_batch_size", "4")
    assert found["shape"]["steps"] == 10 and found["architecture"]["hidden_size"] == 32


def test_a_preset_with_sizes(capsys):
    sizes = ["--model.hidden_size", "128", "--model.num_hidden_layers", "3"]
    found = planned(capsys, "--preset", "qwen3", *sizes)
    assert found["architecture"]["qk_norm"] and found["architecture"]["num_hidden_layers"] == 3


@pytest.mark.parametrize("heads, noted", [(8, True), (2, False)])
def test_heads_that_vllm_lacks_are_noted(capsys, heads, noted):
    plan.main(["--model.hidden_size", "128", "--model.num_attention_heads", str(heads)])
    assert ("vLLM on a processor has no heads of 16, only of 32, 64" in capsys.readouterr().out) == noted


def test_tables_name_every_part(capsys):
    plan.main(["7B on 8 x H100"])
    text = capsys.readouterr().out
    for word in ("attention", "PaLM", "causal", "activations", "zero3", "tensor parallel", "MFU", "Epoch", "MQA"):
        assert word in text
    assert text.splitlines()[2].startswith("Fits") and "days" in text.splitlines()[3]
    assert "2026-05" in text  # the date of the prices


def test_own_prices_and_options(capsys, tmp_path):
    found = planned(
        capsys, "1B on H100", "--price", "2", "--optimizer", "adamw", "--activation_checkpointing", "true",
        "--per_device_train_batch_size", "2",
    )  # fmt: skip
    assert found["dollars"]["expected"] == pytest.approx(2 * found["device_hours"]["expected"])
    assert found["shape"]["checkpointing"] and found["shape"]["micro_batch"] == 2


def test_what_does_not_fit_has_a_first_remedy(capsys):
    found = planned(capsys, "7B on 1 x T4", "--per_device_train_batch_size", "8")
    assert not found["fits"] and "fsdp2" in found["remedy"]


def test_the_plot(capsys, tmp_path):
    plan.main(["10M on CPU", "--plot", str(tmp_path / "plan.svg")])
    assert (tmp_path / "plan.svg").read_text().startswith("<?xml")


def test_counted_and_calibrated(capsys, tmp_path, monkeypatch):
    quick = functools.partial(calibration.calibrate, budget=0.1)
    monkeypatch.setattr(calibration, "calibrate", quick)
    ScratchConfig.from_preset("llama", **SIZES).save_pretrained(tmp_path)
    run = ["--max_steps", "2", "--global_batch_size", "2", "--per_device_train_batch_size", "2"]
    found = planned(capsys, str(tmp_path), "CPU", *run, "--count", "--calibrate")
    tensors = sum(
        found["memory"][part]
        for part in ("weights", "gradients", "optimizer", "activations", "logits", "buffers", "temporaries")
    )
    assert tensors == pytest.approx(found["counted_bytes"], rel=0.1)
    assert 0 < found["step_seconds"]["low"] < found["step_seconds"]["expected"] < 10


def test_questions_at_a_keyboard(capsys, monkeypatch):
    answers = iter(["1B", "8 x H100", "20B tokens"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    found = planned(capsys)
    assert found["layout"]["devices"] == 8 and found["tokens"] == pytest.approx(20e9, rel=0.01)


@pytest.mark.parametrize(
    "arguments, key, facts",
    [
        ([], "subject", ["recipe folder"]),
        (["recipes/nowhere"], None, ["recipes/nowhere"]),
        (["recipes/accelerate"], None, ["config.json"]),
        (["nowhere.json"], None, ["nowhere.json"]),
        (["1B", "--devices", "nowhere.yaml"], None, ["nowhere.yaml"]),
        (["1B", "--plot", "plan.txt"], "plot", ["plan.txt"]),
        (["1B", "--price", "-1"], "price", ["-1"]),
        (["--preset", "llama", "--model.width", "3"], "model.width", []),
        (["recipes/quickstart", "--preset", "llama"], "preset", []),
        (["7B on 6 x H100", "--tensor_parallel", "4", "--sharding", "fsdp2"], "devices", ["6", "8"]),
        (["7B on 8 x H100", "--count"], "count", []),
        (["recipes/quickstart", "3 x 4090"], "global_batch_size", ["16", "3", "18"]),
    ],
    ids=[
        *("nothing", "folder", "no-recipe", "file", "table", "plot"),
        *("price", "model", "both", "layout", "count", "shares"),
    ],
)
def test_bad_input(arguments, key, facts, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with refused(key, *facts):
        plan.main(arguments)


def test_a_plan_imports_nothing_heavy():
    done = imports_nothing_heavy("plan", "7B on 8 x H100")
    assert done.returncode == 0 and "tokens per second" in done.stdout
