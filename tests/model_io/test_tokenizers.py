"""A model's rows and a tokenizer's tokens: padding that is never drawn, tokens added later, pairs that do not fit."""

import json

import pytest
import torch
from tiny_stages import LINES, MODEL, VOCAB_SIZE, write_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.common.errors import UserError
from training.common.recipe import build
from training.model_io.model_folder import save_model
from training.model_io.tokenizers import check_vocabulary, open_model_tokenizer, open_tokenizer
from training.pretraining.config import PretrainConfig
from training.pretraining.model import build_model

PADDED = 320  # 280 tokens, rounded up to a multiple of 64


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tokenizer, and a model as pretraining leaves it."""
    place = tmp_path_factory.mktemp("vocabulary")
    tokenizer = write_tokenizer(place / "tokenizer")
    model = build_model(config(), open_tokenizer(tokenizer, "tokenizer"))
    save_model(model, tokenizer, place / "model")
    return place


def config(**options):
    recipe = {"output_dir": "new", "data": "data", "tokenizer": "tokenizer", "preset": "qwen3", "sequence_length": 128}
    return build(PretrainConfig, recipe | {"model": MODEL} | options, "recipe")


def favour(model, ids):
    """Make some ids by far the likeliest: of two rows that point in opposite directions, one always wins."""
    weight = model.get_output_embeddings().weight.data
    direction = torch.randn(weight.shape[1], generator=torch.Generator().manual_seed(1))
    for place, index in enumerate(ids):
        weight[index] = 1e4 * direction * (-1) ** place


def draw(model, **options):
    """(8, 12) new ids at a high temperature, from all of the vocabulary."""
    torch.manual_seed(0)
    inputs = torch.full((8, 1), 5)
    sampling = {"do_sample": True, "temperature": 5.0, "top_k": 0, "eos_token_id": -1} | options
    return model.generate(inputs, attention_mask=inputs > 0, max_new_tokens=12, **sampling)[:, 1:]


@pytest.mark.parametrize("multiple, rows", [(64, 320), (1, 280), (40, 280), (128, 384)])
def test_the_embedding_is_padded(place, multiple, rows):
    tokenizer = open_tokenizer(place / "tokenizer", "tokenizer")
    model = build_model(config(pad_vocab_to_multiple_of=multiple), tokenizer)
    assert len(tokenizer) == VOCAB_SIZE
    assert model.config.vocab_size == model.get_input_embeddings().num_embeddings == model.lm_head.out_features == rows


def test_a_multiple_below_one_is_refused():
    with pytest.raises(UserError, match="'pad_vocab_to_multiple_of' must be at least 1, not 0"):
        config(pad_vocab_to_multiple_of=0)


@pytest.mark.parametrize(
    "sampling", [{}, {"do_sample": False, "temperature": None, "num_beams": 2}], ids=["draw", "beam"]
)
def test_phantom_tokens_are_never_drawn(place, sampling):
    """Not even if their logits are the largest, as an untrained model's may be."""
    model = AutoModelForCausalLM.from_pretrained(place / "model")
    favour(model, list(range(VOCAB_SIZE, PADDED)))
    assert draw(model, **sampling).max() < VOCAB_SIZE
    model.generation_config.suppress_tokens = None
    assert draw(model, **sampling).min() >= VOCAB_SIZE  # what would happen without


def test_a_model_without_padding_suppresses_nothing(place, tmp_path):
    tokenizer = open_tokenizer(place / "tokenizer", "tokenizer")
    save_model(build_model(config(pad_vocab_to_multiple_of=1), tokenizer), place / "tokenizer", tmp_path)
    assert "suppress_tokens" not in json.loads((tmp_path / "generation_config.json").read_text())


@pytest.mark.parametrize(
    "rows, options", [(281, {}), (320, {"pad_to_multiple_of": 64}), (384, {"pad_to_multiple_of": 128})]
)
def test_an_added_token_can_be_drawn(place, tmp_path, rows, options):
    tokenizer, model = (auto.from_pretrained(place / "model") for auto in (AutoTokenizer, AutoModelForCausalLM))
    before = [tokenizer(line)["input_ids"] for line in LINES]
    assert tokenizer.add_tokens(["<tool>"]) == 1
    model.generation_config.suppress_tokens = [7, *model.generation_config.suppress_tokens]  # one of the user's own
    model.resize_token_embeddings(len(tokenizer), **options)
    assert model.config.vocab_size == rows
    assert model.generation_config.suppress_tokens == [7, *range(281, rows)]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    opened = AutoModelForCausalLM.from_pretrained(tmp_path)
    favour(opened, list(range(280, rows)))
    drawn = draw(opened)
    assert drawn.max() == 280 and "<tool>" in open_model_tokenizer(tmp_path, "model").decode(drawn[0])
    assert [AutoTokenizer.from_pretrained(tmp_path)(line)["input_ids"] for line in LINES] == before


def test_a_tokenizer_larger_than_the_model_is_refused(place):
    tokenizer = open_tokenizer(place / "tokenizer", "tokenizer")
    model_config = build_model(config(), tokenizer).config
    tokenizer.add_tokens([f"<{number}>" for number in range(40)])
    check_vocabulary(tokenizer, model_config, "here", "model")  # 320: all rows taken
    tokenizer.add_tokens(["<more>"])
    with pytest.raises(UserError, match="'model': here: the tokenizer has 321 tokens but the model has 320 embeddings"):
        check_vocabulary(tokenizer, model_config, "here", "model")
