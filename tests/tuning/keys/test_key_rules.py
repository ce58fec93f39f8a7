"""Keys of TRL recipes that are rejected, bounded or without effect, before anything is loaded."""

import pytest
from messages import refused

from training.stages.recipe import check_bounds
from training.tuning.keys import rules
from training.tuning.keys.trl_options import CONFIGURATIONS, check_values, defaults_of, describe, options_of
from training.tuning.pipeline.recipe import parse_recipe

KNOWN = {key for stage in CONFIGURATIONS for key in options_of(stage)}


def test_all_rules_are_about_keys_that_exist():
    assert rules.BOUNDS.keys() <= KNOWN and rules.CHOICES.keys() <= KNOWN
    for rule in rules.REJECTED:
        for stage in rule.stages:
            assert rule.stages == rules.ALL or set(rule.keys) & options_of(stage).keys(), (stage, rule.keys)
        assert set(rule.keys) <= KNOWN
    for keys, others in rules.WITHOUT:
        assert others.keys() <= KNOWN and all(any(known.startswith(key) for known in KNOWN) for key in keys)
    assert rules.ALL == set(CONFIGURATIONS)


@pytest.mark.parametrize("stage", CONFIGURATIONS)
def test_every_default_is_accepted(stage):
    defaults = defaults_of(stage)
    given = {key: value for key, value in defaults.items() if value is not None and key != "do_train"}  # false
    assert check_values(stage, given, "here") == given and not list(rules.without_effect(given, defaults))
    for key in given.keys() - {"max_steps", "pad_to_multiple_of"}:  # -1, auto
        check_bounds(given[key], rules.bounds_of(stage, key), "here", key)


@pytest.mark.parametrize(
    "stage, key, value, fact",
    [
        ("sft", "max_length", -5, "at least 1"),
        ("sft", "max_length", 0, "at least 1"),
        ("dpo", "learning_rate", "-1", "at least 0"),
        ("sft", "learning_rate", float("nan"), "at least 0"),
        ("kto", "per_device_train_batch_size", 0, "at least 1"),
        ("sft", "gradient_accumulation_steps", 0, "at least 1"),
        ("reward", "seed", -1, "at least 0"),
        ("sft", "seed", 2**32, "below 4,294,967,296"),
        ("sft", "max_steps", 0, "at least 1"),
        ("sft", "logging_steps", -1, "above 0"),
        ("dpo", "beta", -0.1, "above 0"),
        ("kto", "beta", 0, "above 0"),
        ("grpo", "beta", -0.1, "at least 0"),
        ("rloo", "num_generations", 0, "at least 2"),
        ("grpo", "temperature", 0, "above 0"),
        ("sft", "train_sampling_strategy", "group_by_lenght", "did you mean 'group_by_length'?"),
        ("dpo", "truncation_mode", "keep_middle", "keep_end"),
        ("dpo", "f_divergence_type", "kl", "reverse_kl"),
        ("sft", "resume_from_checkpoint", "nowhere", "resumes from its own newest checkpoint"),
        ("dpo", "push_to_hub", True, "scratch push"),
        ("sft", "hub_token", "hf_x", "hf auth login"),
        ("sft", "do_train", False, "the stage trains"),
        ("sft", "eval_packing", True, "needs packing: true"),
        ("sft", "model_init_kwargs", {"dtype": "float32"}, "dtype"),
        ("orpo", "max_length", None, "512"),
        ("sft", "dtype", "bf16", "did you mean 'bfloat16'?"),
        ("orpo", "max_completion_length", 5, "max_length"),
        ("grpo", "max_completion_length", None, "number"),
        ("orpo", "label_smoothing_factor", 0.1, "has no effect"),
        ("sft", "test_split_size", 0.1, "eval_strategy: epoch"),
    ],
)
def test_what_trl_would_misread_is_rejected(stage, key, value, fact):
    with refused(key, "here", fact):
        check_values(stage, {key: value}, "here")


def test_data_named_twice():
    with refused("dataset_name", "'datasets'"):
        check_values("sft", {"dataset_name": "a", "datasets": [{"path": "json"}]}, "here")
    check_values("sft", {"dataset_name": "a", "datasets": []}, "here")


@pytest.mark.parametrize(
    "values",
    [
        {"max_steps": -1, "max_length": None, "max_grad_norm": 0, "warmup_steps": 0.1, "logging_steps": 0.5},
        {"pad_to_multiple_of": "auto", "eval_strategy": "epoch", "test_split_size": 0.1, "save_total_limit": None},
        {"push_to_hub": False, "resume_from_checkpoint": None, "do_train": True, "label_smoothing_factor": 0.1},
    ],
)
def test_what_means_something_is_taken(values):
    assert check_values("sft", values, "here") == values


def test_keys_without_effect_are_named():
    defaults = defaults_of("dpo")
    given = {"lora_r": 4, "lora_alpha": 32, "eval_steps": 5, "do_eval": True, "ref_model_sync_steps": 2}
    assert list(rules.without_effect(given, defaults)) == [
        "'lora_r' has no effect without use_peft: true",
        "'ref_model_sync_steps' has no effect without sync_ref_model: true",
        "'eval_steps' has no effect without eval_strategy: steps",
        "'do_eval' has no effect without eval_strategy: steps",
    ]
    switches = {"use_peft": True, "eval_strategy": "steps", "sync_ref_model": True}
    assert not list(rules.without_effect(given | switches, defaults))
    assert list(rules.without_effect({"warmup_steps": 5, "lr_scheduler_type": "constant"}, defaults)) == [
        "'warmup_steps' has no effect without lr_scheduler_type: constant_with_warmup"
    ]
    best = {"metric_for_best_model": "loss", "save_strategy": "best"}
    assert not list(rules.without_effect(best, defaults))
    sft = {"packing": True, "eval_packing": True}
    assert check_values("sft", sft, "here") == sft
    assert list(rules.without_effect(sft, defaults_of("sft"))) == [
        "'eval_packing' has no effect without eval_strategy: steps"
    ]


def test_help_shows_bounds_and_leaves_out_what_is_rejected(monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    page = describe("sft")
    assert "--resume_from_checkpoint" not in page and "--push_to_hub" not in page
    assert "--test_split_size" in page and "--do_train" in page and "--label_smoothing_factor" in page
    assert "(at least 1, default 1024)" in " ".join(page.split())
    assert "--label_smoothing_factor" not in describe("dpo")


def test_columns_that_rewards_read_are_kept():
    with refused("remove_unused_columns", "rewards"):
        check_values("grpo", {"remove_unused_columns": True, "reward_funcs": ["number"]}, "here")
    check_values("rloo", {"remove_unused_columns": True, "reward_model_name_or_path": "reward"}, "here")


@pytest.mark.parametrize(
    "key, value, package",
    [
        ("deepspeed", "ds.json", "deepspeed"),
        ("use_liger_kernel", True, "pip install liger-kernel"),
        ("use_vllm", True, "pip install vllm"),
        ("attn_implementation", "flash_attention_2", "pip install flash-attn"),
    ],
)
def test_optional_packages_are_looked_for_before_anything_is_loaded(monkeypatch, key, value, package):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with refused(key, "is not installed", package):
        rules.check_packages({key: value}, "here")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: "found")
    rules.check_packages({key: value}, "here")
    rules.check_packages({"attn_implementation": "sdpa", "use_vllm": False, "deepspeed": None}, "here")


@pytest.mark.parametrize(
    "key, value, fact",
    [
        ("optim", "adamw_8bits", "did you mean 'adamw_8bit'"),
        ("lr_scheduler_type", "cosin", "did you mean 'cosine'"),
        ("save_strategy", "step", "did you mean 'steps'"),
        ("log_level", "loud", "passive"),
        ("dataloader_multiprocessing_context", "frok", "fork"),
    ],
)
def test_names_of_a_list_are_compared_with_it(key, value, fact):
    with refused(key, value, fact):
        check_values("sft", {key: value}, "here")
    assert check_values("sft", {"optim": "adamw_8bit", "report_to": "wandb"}, "here")


@pytest.mark.parametrize("key", ["report_to", "bf16", "use_cpu", "logging_nan_inf_filter"])
def test_null_means_our_default(key):
    """TRL's own defaults of these keys differ from ours, and its parser takes null for a value of its own."""
    values = {"model_name_or_path": "model", "output_dir": "new", "datasets": [{"path": "json"}]}
    recipes = [parse_recipe("sft", given, "recipe.yaml").training for given in (values, values | {key: None})]
    assert getattr(recipes[1], key) == getattr(recipes[0], key)
