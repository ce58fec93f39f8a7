"""Recipes derived from a depth: the rules, keys that the recipe gives as well, and a run."""

import json
from pathlib import Path

import pytest
from tiny_stages import forget_accelerate, write_data, write_tokenizer
from transformers import AutoModelForCausalLM

from training.commands import pretrain
from training.common.errors import UserError
from training.model_io.tokenizers import open_tokenizer
from training.pretraining.config import PretrainConfig
from training.pretraining.scaling import derive_from_depth
from training.stages.recipe import build

RECIPES = Path(__file__).parents[2] / "recipes"
DERIVED = {
    "model.num_hidden_layers",
    "model.hidden_size",
    "model.num_attention_heads",
    "sequence_length",
    "global_batch_size",
    "per_device_train_batch_size",
    "max_steps",
    "optimizer.learning_rate",
    "optimizer.embedding_learning_rate",
    "optimizer.head_learning_rate",
    "optimizer.scalar_learning_rate",
    "optimizer.weight_decay",
}


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer")


@pytest.fixture(scope="module")
def scaled(tokenizer_folder):
    """A function that derives a recipe; it returns the recipe and the lines that explain it."""
    tokenizer = open_tokenizer(tokenizer_folder, "tokenizer")

    def scale(**given):
        given = {"output_dir": "out", "data": "data", "tokenizer": "tokenizer", **given}
        return derive_from_depth(build(PretrainConfig, given, "recipe"), given, tokenizer, "recipe")

    return scale


def tokens(config: PretrainConfig) -> tuple[int, int]:
    """Tokens of a batch, and of the run."""
    batch = config.global_batch_size * config.sequence_length
    return batch, batch * config.max_steps


def test_more_depth_is_more_of_everything_and_gentler(scaled):
    configs = [scaled(depth=depth)[0] for depth in (1, 2, 3, 4, 6, 8, 12, 16, 24)]
    for smaller, larger in zip(configs, configs[1:], strict=False):
        assert smaller.model["hidden_size"] < larger.model["hidden_size"]
        assert smaller.sequence_length <= larger.sequence_length
        assert tokens(smaller)[0] <= tokens(larger)[0] and tokens(smaller)[1] < tokens(larger)[1]
        low, high = (config.optimizer for config in (larger, smaller))  # beside the factor of the rounded batch
        assert low.embedding_learning_rate / low.learning_rate < high.embedding_learning_rate / high.learning_rate
        assert smaller.optimizer.weight_decay > larger.optimizer.weight_decay
    for config in configs:
        head = config.model["hidden_size"] // config.model["num_attention_heads"]
        assert head in (64, 128) and config.model["hidden_size"] % head == 0
        assert config.global_batch_size % config.per_device_train_batch_size == 0
        assert tokens(config)[0] >= 4096 and 0.016 < config.optimizer.learning_rate < 0.025


def test_the_rules_at_twelve_layers(scaled):
    """nanochat's shape and horizon; the batch by Power Lines from the quickstart's."""
    config, _ = scaled(depth=12, preset="gpt2", model={"tie_word_embeddings": False, "vocab_size": 32768})
    assert (config.model["hidden_size"], config.model["num_attention_heads"]) == (768, 6)
    matrices = 12 * 12 * 768**2 + 32768 * 768
    # GPT-2 has biases and norms too, which belong to no embedding: less than 0.2 % of its weights.
    batch, horizon = tokens(config)
    assert horizon == pytest.approx(12 * matrices, rel=2e-3)
    assert 2**-0.5 <= batch / (4096 * (horizon / (550 * 4096)) ** 0.383) <= 2**0.5


def test_the_run_that_the_rules_were_fitted_to(scaled):
    """Four layers of width 256 for 550 steps of 4,096 tokens: the sizes and rates that were tuned."""
    config, _ = scaled(depth=4, preset="qwen3", max_steps=550)
    sizes = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 2}
    assert {key: config.model[key] for key in sizes} == sizes
    batch = (config.sequence_length, config.global_batch_size, config.per_device_train_batch_size)
    assert batch == (256, 16, 16)
    rates = {"learning_rate": 0.02, "embedding_learning_rate": 0.1, "head_learning_rate": 0.004}
    assert {key: getattr(config.optimizer, key) for key in rates} == pytest.approx(rates, rel=0.01)


def test_what_is_given_stays_and_the_rest_follows_it(scaled):
    plain, _ = scaled(depth=6)
    given = {"global_batch_size": plain.global_batch_size * 4, "max_steps": plain.max_steps}
    config, lines = scaled(depth=6, **given)
    assert config.global_batch_size == given["global_batch_size"] and config.max_steps == plain.max_steps
    # Four times the batch at four times the horizon: sqrt(4 / 4^0.383) by the two rules together.
    ratio = config.optimizer.learning_rate / plain.optimizer.learning_rate
    assert ratio == pytest.approx((4 / 4**0.383) ** 0.5, rel=0.01)
    assert sum(" given" in line for line in lines) == 2
    assert any("max_steps" in line and "given (by the rule" in line for line in lines)

    wider, _ = scaled(depth=6, model={"hidden_size": 512})
    assert wider.model["num_attention_heads"] == 4 and tokens(wider)[1] > tokens(plain)[1]
    odd, _ = scaled(depth=6, model={"hidden_size": 96})
    assert odd.model["num_attention_heads"] == 3
    faster, _ = scaled(depth=6, optimizer={"learning_rate": 2 * plain.optimizer.learning_rate})
    assert faster.optimizer.weight_decay == pytest.approx(plain.optimizer.weight_decay / 2, rel=0.01)
    assert scaled(depth=6, optimizer={"learning_rate": 0})[0].optimizer.weight_decay == 0
    whole, _ = scaled(depth=2, per_device_train_batch_size=12)
    assert whole.global_batch_size % 12 == 0 and whole.per_device_train_batch_size == 12


def test_rates_know_the_optimizer_and_a_tied_embedding(scaled):
    tied, _ = scaled(depth=4, preset="gpt2")
    untied, _ = scaled(depth=4)
    assert tied.optimizer.embedding_learning_rate == tied.optimizer.head_learning_rate
    assert untied.optimizer.embedding_learning_rate > 10 * untied.optimizer.head_learning_rate
    narrow, wide = (scaled(depth=depth, optimizer={"name": "adamw"})[0].optimizer for depth in (4, 16))
    assert narrow.learning_rate == pytest.approx(0.001, rel=0.2)
    assert wide.learning_rate == pytest.approx(0.0005, rel=0.2)


def test_flash_attention_that_separates_documents_takes_one_sequence_at_once(scaled):
    alone, lines = scaled(depth=2, document_mask=True, attn_implementation="flash_attention_2")
    assert alone.per_device_train_batch_size == 1 and any("at most 1 sequence at once" in line for line in lines)
    assert alone.global_batch_size == scaled(depth=2)[0].global_batch_size


@pytest.mark.parametrize("processes", [2, 8])
def test_several_processes_share_the_same_batch(scaled, monkeypatch, processes):
    alone, _ = scaled(depth=4)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    shared, _ = scaled(depth=4)
    assert shared.global_batch_size == alone.global_batch_size
    assert shared.global_batch_size % (shared.per_device_train_batch_size * processes) == 0


def test_every_number_comes_with_its_rule_on_a_line(scaled):
    config, lines = scaled(depth=5)
    assert {line.split()[0] for line in lines} == DERIVED and len(lines) == len(DERIVED)
    assert all("\n" not in line and len(line.split()) > 2 for line in lines)
    values = {line.split()[0]: float(line.split()[1].replace(",", "")) for line in lines}
    assert values["optimizer.weight_decay"] == config.optimizer.weight_decay
    assert values["max_steps"] == config.max_steps


@pytest.mark.parametrize(
    "given, message",
    [
        ({"depth": 0}, "'depth' must be at least 1, not 0"),
        ({"depth": 4, "model": {"hidden_size": "wide"}}, "'model.hidden_size' takes a number above 0, not 'wide'"),
        ({"depth": 4, "model": {"num_hidden_layers": None}}, "'model.num_hidden_layers' takes a number above 0"),
        ({"depth": 4, "model": {"head_dim": 0}}, "'model.head_dim' takes a number above 0, not 0"),
        ({"depth": 4, "model": {"hidden_size": 100.5}}, "'model.hidden_size' takes int, not 100.5"),
    ],
)
def test_wrong_numbers_are_refused(scaled, given, message):
    with pytest.raises(UserError, match=message):
        scaled(**given)


def test_a_depth_alone_trains(tokenizer_folder, tmp_path, capsys):
    data = write_data(tmp_path / "data", tokenizer_folder)
    recipe = tmp_path / "pretrain.yaml"
    recipe.write_text(f"output_dir: {tmp_path}/model\ndata: {data}\ntokenizer: {tokenizer_folder}\ndepth: 2\n")
    forget_accelerate()
    pretrain.main(["--config", str(recipe), "--max_steps", "2", "--bf16", "false"])
    printed = capsys.readouterr().out
    assert "pretrain: depth 2" in printed and "64 x layers" in printed and "given (by the rule" in printed
    record = json.loads((tmp_path / "model" / "provenance.json").read_text())["recipe"]
    assert record["depth"] == 2 and record["max_steps"] == 2
    assert record["model"] == {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2}
    assert record["global_batch_size"] * record["sequence_length"] == 4096
    assert record["optimizer"]["embedding_learning_rate"] > 0.1
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").config.hidden_size == 128


@pytest.mark.parametrize(
    "given, sizes",
    [
        ({}, (32, 16)),
        ({"global_batch_size": 8}, (8, 8)),
        ({"global_batch_size": 36}, (36, 12)),
        ({"per_device_train_batch_size": 48}, (48, 48)),
        ({"per_device_train_batch_size": 12}, (36, 12)),
        ({"document_mask": True, "attn_implementation": "flash_attention_2"}, (32, 1)),
    ],
)
def test_a_batch_size_alone_sets_the_other(given, sizes):
    config = build(PretrainConfig, {"output_dir": "out", "data": "data", "tokenizer": "tokenizer"} | given, "recipe")
    assert (config.global_batch_size, config.sequences_at_once(1)) == sizes


def test_processes_share_the_batch():
    config = build(PretrainConfig, {"output_dir": "out", "data": "data", "tokenizer": "tokenizer"}, "recipe")
    assert [config.sequences_at_once(processes) for processes in (2, 4, 8, 32)] == [16, 8, 4, 1]
    with pytest.raises(ValueError, match=r"^'global_batch_size': 32 is not a multiple of the number.*set it to 33$"):
        config.sequences_at_once(3)
    config.per_device_train_batch_size = 16
    with pytest.raises(ValueError, match=r"^'global_batch_size': 32 .* x processes \(3\); set it to 48$"):
        config.sequences_at_once(3)
