"""A model's rows and a tokenizer's tokens: padding that is never drawn, tokens added later, pairs that do not fit."""

import json
import shutil

import pytest
import torch
from character_tokenizers import character_tokenizer
from messages import refused
from tiny_model import build as build_tiny
from tiny_stages import LINES, MODEL, VOCAB_SIZE, write_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, ByT5Tokenizer
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from modeling_scratch import ScratchForSequenceClassification
from training.common.errors import UserError
from training.model_io.conversations import encode_answers, encode_conversation, encode_prompt, encode_text
from training.model_io.model_folder import save_model, save_tokenizer
from training.model_io.tokenizers import check_vocabulary, has_tokenizer, open_model_tokenizer, open_tokenizer
from training.pretraining.config import PretrainConfig
from training.pretraining.model import build_model
from training.stages.recipe import build

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
    own = [7, VOCAB_SIZE - 1]  # the last token, before those that do not exist
    model.generation_config.suppress_tokens += own
    model.resize_token_embeddings(len(tokenizer), **options)
    assert model.config.vocab_size == rows
    assert model.generation_config.suppress_tokens == [*own, *range(281, rows)]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    opened = AutoModelForCausalLM.from_pretrained(tmp_path)
    favour(opened, list(range(280, rows)))
    drawn = draw(opened)
    assert drawn.max() == 280 and "<tool>" in open_model_tokenizer(tmp_path, "model").decode(drawn[0])
    assert [AutoTokenizer.from_pretrained(tmp_path)(line)["input_ids"] for line in LINES] == before


def test_what_the_user_suppresses_survives_resizing(tmp_path):
    """Of a model whose rows all have tokens, so that the last one is the user's; then of a padded one."""
    model = build_tiny()
    model.generation_config.suppress_tokens = [95]
    for tokens, options, suppressed in [
        (104, {}, [95]),
        (None, {"pad_to_multiple_of": 64}, [95, *range(104, 128)]),
        (106, {"pad_to_multiple_of": 64}, [95, *range(106, 128)]),
        (90, {}, None),
    ]:
        model.resize_token_embeddings(tokens, **options)
        assert model.generation_config.suppress_tokens == suppressed
        model.save_pretrained(tmp_path)
        model = AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("classifies", [False, True])
def test_the_tokenizer_of_a_model_has_its_context_and_pads_for_its_use(place, tmp_path, classifies):
    options = {"sequence_length": 48, "model": MODEL | {"max_position_embeddings": 48}}
    model = build_model(config(**options), open_tokenizer(place / "tokenizer", "tokenizer"))
    if classifies:
        model = ScratchForSequenceClassification(model.config)
    save_model(model, place / "tokenizer", tmp_path)
    found = AutoTokenizer.from_pretrained(tmp_path)
    assert (found.model_max_length, found.padding_side) == (48, "right" if classifies else "left")
    assert AutoTokenizer.from_pretrained(place / "tokenizer").padding_side == "left"
    found.chat_template = "{{ messages }}"
    found.padding_side, found.model_max_length = "right", 1024
    save_model(model, place / "model", tmp_path)
    save_tokenizer(found, tmp_path, model)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.chat_template == "{{ messages }}"
    assert (again.model_max_length, again.padding_side) == (48, "right" if classifies else "left")


def test_a_model_from_the_hub_keeps_its_tokenizer_and_generation_settings(place, tmp_path, monkeypatch):
    """Taken from the cache, at the revision that was opened: saving a trained model needs no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository, commit = tmp_path / "hub" / "models--someone--base", "c0ffee" + "0" * 34
    cached = repository / "snapshots" / commit
    shutil.copytree(place / "model", cached)
    (repository / "refs").mkdir()
    (repository / "refs" / "v2").write_text(commit)
    (cached / "generation_config.json").write_text('{"eos_token_id": 3, "top_p": 0.7}')
    save_model(build_tiny(), "someone/base", tmp_path / "tuned", revision="v2")
    for name in ("generation_config.json", "tokenizer.json"):
        assert (tmp_path / "tuned" / name).read_bytes() == (cached / name).read_bytes()
    with refused(None, "someone/base", "no tokenizer"):  # of the branch main
        save_model(build_tiny(), "someone/base", tmp_path / "other")


def test_a_token_of_another_chat_template_can_be_drawn(place, tmp_path):
    """The model's generation settings, which are copied, suppress the id that the new token gets."""
    shutil.copytree(place / "model", tmp_path / "start")
    tokenizer, model = (auto.from_pretrained(place / "model") for auto in (AutoTokenizer, AutoModelForCausalLM))
    file = tmp_path / "start" / "generation_config.json"
    settings = json.loads(file.read_text())
    assert settings["suppress_tokens"] == [*range(VOCAB_SIZE, PADDED)]
    file.write_text(json.dumps(settings | {"suppress_tokens": [7, *settings["suppress_tokens"]]}))
    tokenizer.add_tokens(["<tool>"])
    save_model(model, tmp_path / "start", tmp_path / "tuned")
    save_tokenizer(tokenizer, tmp_path / "tuned", model)
    saved = json.loads((tmp_path / "tuned" / "generation_config.json").read_text())
    assert saved["suppress_tokens"] == [7, *range(VOCAB_SIZE + 1, PADDED)]
    assert saved["tokenizer_size"] == VOCAB_SIZE + 1


def test_a_tokenizer_in_python_is_rejected(tmp_path):
    ByT5Tokenizer().save_pretrained(tmp_path)
    with refused("model", tmp_path, "ByT5Tokenizer", "tokenizer.json"):
        open_tokenizer(tmp_path, "model")


def test_a_batch_is_continued_as_each_text_is(place):
    """With nothing but `padding=True`: the last position of every sequence is a token."""
    tokenizer, model = (auto.from_pretrained(place / "model") for auto in (AutoTokenizer, AutoModelForCausalLM))
    options = {"max_new_tokens": 5, "do_sample": False, "temperature": None, "top_k": None, "eos_token_id": -1}
    together = model.generate(**tokenizer(LINES[:2], padding=True, return_tensors="pt"), **options)
    for line, row in zip(LINES[:2], together, strict=True):
        alone = model.generate(**tokenizer(line, return_tensors="pt"), **options)
        assert torch.equal(alone[0, -5:], row[-5:])


def test_long_texts_are_the_stages_own_business(place, caplog):
    """transformers would warn of indexing errors, where our stages split, truncate or count."""
    ids = open_tokenizer(place / "model", "model")("the cat " * 200)["input_ids"]
    assert len(ids) > 128 and not caplog.records


def test_settings_of_a_wrong_type(tmp_path):
    write_tokenizer(tmp_path / "tokenizer")
    file = tmp_path / "tokenizer" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": []}))
    with refused("tokenizer", tmp_path / "tokenizer"):
        open_tokenizer(tmp_path / "tokenizer", "tokenizer")


def test_a_tokenizer_larger_than_the_model_is_refused(place):
    tokenizer = open_tokenizer(place / "tokenizer", "tokenizer")
    model_config = build_model(config(), tokenizer).config
    tokenizer.add_tokens([f"<{number}>" for number in range(40)])
    check_vocabulary(tokenizer, model_config, "here", "model")  # 320: all rows taken
    tokenizer.add_tokens(["<more>"])
    with pytest.raises(UserError, match="'model': here: the tokenizer has 321 tokens but the model has 320 embeddings"):
        check_vocabulary(tokenizer, model_config, "here", "model")


SENTENCEPIECE = b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02"


@pytest.mark.parametrize(
    "file, content, package",
    [
        ("tokenizer.model", SENTENCEPIECE, "sentencepiece"),
        ("tokenizer.model", b"IQ== 0\nIg== 1\n", "tiktoken"),  # Llama 3's
        ("tekken.json", b"{}", "mistral-common"),
    ],
)
def test_a_tokenizer_that_must_be_converted(place, tmp_path, capsys, file, content, package):
    """In one line, which names the package for the format, not another one."""
    (tmp_path / "config.json").write_bytes((place / "model" / "config.json").read_bytes())
    (tmp_path / file).write_bytes(content)
    assert has_tokenizer(tmp_path)
    with refused("model", tmp_path, file, "tokenizer.json", f"`pip install {package}", "save_pretrained"):
        open_tokenizer(tmp_path, "model")
    assert not capsys.readouterr().err


def test_tekken_beside_a_fast_tokenizer(place, tmp_path, monkeypatch):
    """Where mistral-common is installed, AutoTokenizer prefers its class, which is not a fast one."""
    shutil.copytree(place / "model", tmp_path / "model")
    (tmp_path / "model" / "tekken.json").write_text("{}")
    (tmp_path / "model" / "config.json").write_text('{"model_type": "mistral"}')
    monkeypatch.setitem(TOKENIZER_MAPPING_NAMES, "mistral", "MistralCommonBackend")
    monkeypatch.setattr("transformers.integrations.mistral.tokenizer.is_mistral_common_available", lambda: True)
    assert len(open_tokenizer(tmp_path / "model", "model")) == VOCAB_SIZE


QUESTION = [{"role": "user", "content": "A café?"}]
ENCODED = {
    "text": lambda tokenizer: encode_text(tokenizer, "A café"),
    "prompt": lambda tokenizer: encode_prompt(tokenizer, "A café"),
    "messages": lambda tokenizer: encode_prompt(tokenizer, QUESTION),
    "conversation": lambda tokenizer: encode_conversation(tokenizer, QUESTION).ids,
    "answers": lambda tokenizer: encode_answers(tokenizer, "A", "caf", "café").answers[1],
}


@pytest.mark.parametrize("encode", ENCODED.values(), ids=ENCODED)
def test_a_character_that_is_not_in_the_vocabulary(tmp_path, encode):
    """It becomes the token for unknown characters; an older tokenizer without this token is named in one line."""
    tokenizer = character_tokenizer(tmp_path, unknown=True)
    assert encode(tokenizer).count(tokenizer.unk_token_id) == 1
    with refused(None, str(tmp_path / "old"), "'é'"):
        encode(character_tokenizer(tmp_path / "old", unknown=False))
