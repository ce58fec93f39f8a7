"""Nearest neighbours of tokens through training, and position vectors, against what they are defined by."""

import json
import shutil

import numpy as np
import pytest
import torch
from messages import refused
from tiny_model import build
from tiny_stages import VOCAB_SIZE, write_model, write_tokenizer
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from modeling_scratch import ScratchForCausalLM
from modeling_scratch.modeling_scratch import apply_rotary_pos_emb
from training.model_io.embeddings import nearest_tokens, neighbours_through_training, position_vectors


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with two checkpoints, of which the second has another embedding."""
    place = tmp_path_factory.mktemp("neighbours")
    model = write_model(place / "run", write_tokenizer(place / "tokenizer"))
    for step in (3, 7):
        folder = model / "checkpoints" / f"step-{step:08d}"
        shutil.copytree(model, folder, ignore=shutil.ignore_patterns("checkpoints"))
        (folder / "complete.json").write_text(json.dumps({"progress": {"step": step, "validation_loss": None}}))
    network = ScratchForCausalLM.from_pretrained(folder)
    embedding = network.get_input_embeddings().weight.data
    embedding[VOCAB_SIZE - 2] = 2 * embedding[AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("c")]
    network.save_pretrained(folder)
    return model


def test_the_closest_by_cosine():
    embedding = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    unit = embedding.numpy() / np.linalg.norm(embedding.numpy(), axis=1, keepdims=True)
    for token, nearest in zip((3, 11), nearest_tokens(embedding, [3, 11], 5), strict=True):
        cosines = unit @ unit[token]
        order = [other for other in np.argsort(-cosines) if other != token][:5]
        assert [other for other, _ in nearest] == order
        assert [cosine for _, cosine in nearest] == pytest.approx(cosines[order].tolist(), abs=1e-6)


def test_every_checkpoint_of_a_run(run):
    found = neighbours_through_training(run, ["c", " another"], count=4)
    assert [(one.token, one.step) for one in found] == [("c", 3), ("c", 7), ("·another", 3), ("·another", 7)]
    assert all(len(one.nearest) == 4 for one in found)
    assert found[2].nearest == found[3].nearest and found[0].nearest != found[1].nearest
    assert found[1].nearest[0][1] == pytest.approx(1, abs=1e-6)


def test_a_model_without_checkpoints_is_one_moment(run):
    (found,) = neighbours_through_training(run / "checkpoints" / "step-00000003", ["c"], count=10_000)
    assert found.step is None and len(found.nearest) == VOCAB_SIZE - 1


def test_rotations_are_those_of_attention():
    model = build("llama")
    positions = position_vectors(model)
    size = model.config.head_dim
    same = torch.ones(1, 1, 64, size) / size**0.5  # a key that uses all rotations alike, at every position
    cos, sin = model.model.rotary_emb(same, torch.arange(64)[None])
    turned = apply_rotary_pos_emb(same, cos, sin)[0, 0]
    assert positions.kind == "rope"
    assert positions.similarity == pytest.approx((turned @ turned.T).numpy(), abs=1e-5)
    assert positions.by_distance[9] == pytest.approx(float(turned[20] @ turned[11]), abs=1e-5)


@pytest.mark.parametrize("kind", ["learned", "sinusoidal"])
def test_what_is_added_to_the_tokens(kind):
    model = build("llama", position_type=kind)
    positions = position_vectors(model, 10)
    places = torch.arange(10)[None]
    added = model.model.embed(torch.zeros(1, 10, 32), places)[0].detach().numpy()
    assert positions.kind == kind and np.array_equal(positions.vectors, added)
    assert np.diag(positions.similarity).mean() == pytest.approx(1)


def test_bad_input_is_one_line(run, tmp_path):
    with refused("neighbours", "' another another'", "2 tokens"):
        neighbours_through_training(run, ["c", " another another"])
    with refused("neighbours", "0 tokens"):
        neighbours_through_training(run, [""])
    with refused("neighbours", "nowhere"):
        neighbours_through_training(tmp_path / "nowhere", ["c"])
    with refused("positions", "without positions"):
        position_vectors(build("scratch", position_type="none"))
    with refused("positions", "GPT2LMHeadModel"):
        position_vectors(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=9)))
