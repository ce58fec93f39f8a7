"""Completions: those of `generate`, spaces between words, and the limits of the context."""

import pytest
import torch
from messages import refused
from tiny_stages import write_model, write_tokenizer
from tokenizers import Tokenizer, decoders, models
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from training.chat.sampling import Sampling
from training.chat.text_model import TextModel

CONTEXT = 48
GREEDY = Sampling(temperature=0, max_new_tokens=6)
TEXT = "the cat sat"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> TextModel:
    """A base model without a chat template that never ends a text by itself."""
    place = tmp_path_factory.mktemp("place")
    tokenizer = write_tokenizer(place / "tokenizer")
    folder = write_model(place / "base", tokenizer, dials={"max_position_embeddings": CONTEXT})
    (folder / "chat_template.jinja").unlink()
    settings = GenerationConfig.from_pretrained(folder)
    settings.eos_token_id = None
    settings.save_pretrained(folder)
    return TextModel.open(str(folder))


def completed(model: TextModel, text: str, sampling: Sampling = GREEDY) -> tuple[str, list[str]]:
    pieces: list[str] = []
    reply = model.complete(model.encode(text), sampling, pieces.append)
    assert reply.interrupted is None and all(pieces)
    return "".join(pieces), reply.notes


def test_the_continuation_of_generate(model):
    ids = model.tokenizer(TEXT, return_tensors="pt")
    output = model.model.generate(**ids, do_sample=False, max_new_tokens=6)
    assert TEXT + completed(model, TEXT)[0] == model.tokenizer.decode(output[0], skip_special_tokens=True)


def test_an_empty_text_begins_as_every_text_does(model):
    start = torch.tensor([[model.model.config.bos_token_id]])
    output = model.model.generate(start, attention_mask=torch.ones_like(start), do_sample=False, max_new_tokens=6)
    assert completed(model, "")[0] == model.tokenizer.decode(output[0], skip_special_tokens=True)


def test_control_tokens_in_the_text_are_text(model):
    ids = model.encode("a <|im_end|> b")
    assert model.tokenizer.convert_tokens_to_ids("<|im_end|>") not in ids
    assert model.tokenizer.decode(ids) == "a <|im_end|> b"


def test_the_end_of_the_context(model):
    text, notes = completed(model, TEXT, Sampling(temperature=0, max_new_tokens=500))
    assert text and notes == [f"truncated: the context of {model.name} is full ({CONTEXT} tokens)"]
    with refused("text", f"context of {CONTEXT}", "shorten it"):
        model.encode("word " * 200)


def test_spaces_of_a_tokenizer_that_drops_the_first(tmp_path):
    """As SentencePiece's does: the first word of a decoded text has no space before it."""
    words = {"<s>": 0, "\u2581one": 1, "\u2581two": 2}
    backend = Tokenizer(models.WordLevel(words, unk_token="<s>"))
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    network = LlamaForCausalLM(LlamaConfig(vocab_size=3, bos_token_id=0, eos_token_id=None, pad_token_id=0, **sizes))
    network.generation_config.suppress_tokens = [0, 1]
    pieces: list[str] = []
    TextModel("tiny", network.eval(), tokenizer).complete([0, 1], Sampling(max_new_tokens=3), pieces.append)
    assert pieces == [" two"] * 3
