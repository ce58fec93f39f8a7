"""Continuations scored in trees of shared prefixes, against each sequence alone and against lm-eval's own class."""

import random
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from training.eval.measures.continuations import plant, reads_trees, score_continuations

VOCAB = 97
SIZES = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "initializer_range": 0.3}
HEADS = SIZES | {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 48, "head_dim": 16}


def scratch(**changes):
    sizes = HEADS | {"max_position_embeddings": 128, "zero_init_projections": False}
    return ScratchForCausalLM(ScratchConfig(**sizes | changes))


# Each architecture, and whether it can read trees.
MODELS = {
    "ours": (lambda: scratch(), True),
    "ours, learned positions": (lambda: scratch(position_type="learned"), True),
    "ours, sliding window": (lambda: scratch(sliding_window=4, layer_types=["sliding_attention"] * 3), False),
    "gpt2": (lambda: GPT2LMHeadModel(GPT2Config(**SIZES, num_attention_heads=2, bos_token_id=0, eos_token_id=0)), True),
    "mistral": (lambda: MistralForCausalLM(MistralConfig(**HEADS, sliding_window=4)), False),
    "gemma2": (lambda: Gemma2ForCausalLM(Gemma2Config(**HEADS, sliding_window=4)), False),
    "bloom": (lambda: BloomForCausalLM(BloomConfig(**SIZES, n_head=2)), False),
    "mamba": (lambda: MambaForCausalLM(MambaConfig(**SIZES)), False),
}


def make(name):
    torch.manual_seed(1)
    model = MODELS[name][0]().eval()
    for parameter in model.parameters():  # initial weights at zero would hide mistakes
        torch.nn.init.normal_(parameter.data, std=0.3) if parameter.ndim > 1 else parameter.data.add_(0.1)
    return model


def some_pairs():
    """Few-shot prompts with several answers, minimal pairs, equal requests, and strangers of many lengths."""
    draw = random.Random(0)

    def words(count):
        return [draw.randrange(VOCAB) for _ in range(count)]

    shots = words(20)
    pairs = []
    for _ in range(5):
        question = shots + words(draw.randrange(3, 7))
        pairs += [(question, [answer]) for answer in (1, 2, 3)]
        pairs += [(question, words(draw.randrange(1, 5))) for _ in range(3)]
    for _ in range(6):
        sentence = words(9)
        pairs += [([0], sentence), ([0], [*sentence[:4], *words(5)]), ([0], sentence[:5])]
    pairs += [(words(draw.randrange(1, 30)), words(draw.randrange(1, 6))) for _ in range(12)]
    draw.shuffle(pairs)
    return pairs


@torch.inference_mode()
def alone(model, context, continuation):
    """The log-probability of a continuation, and whether it is the greedy one."""
    logits = model(input_ids=torch.tensor([[*context, *continuation][:-1]])).logits[0, len(context) - 1 :].float()
    targets = torch.tensor(continuation)[:, None]
    nats = logits.log_softmax(dim=-1).gather(1, targets).sum()
    return nats.item(), bool((logits.argmax(dim=-1, keepdim=True) == targets).all())


CASES = [
    (name, attention) for name in MODELS for attention in ("sdpa", "eager") if (name, attention) != ("mamba", "eager")
]


@pytest.mark.parametrize("name, attention", CASES)
def test_scores_equal_those_of_each_sequence_alone(name, attention):
    model = make(name)
    if attention == "eager":
        model.set_attn_implementation("eager")
    pairs = some_pairs()
    assert reads_trees(model) is MODELS[name][1]
    scores = score_continuations(model, pairs, tokens=256)
    nats, greedy = zip(*(alone(model, *pair) for pair in pairs))
    assert scores.nats.tolist() == pytest.approx(nats, abs=1e-4)
    assert tuple(scores.greedy.tolist()) == greedy
    assert max(nats) - min(nats) > 1  # the scores tell the requests apart


def test_a_greedy_continuation_is_recognised():
    model = make("gpt2")
    context, found = [5, 6, 7], []
    for _ in range(4):
        found.append(model(torch.tensor([context + found])).logits[0, -1].argmax().item())
    other = [*found[:3], (found[3] + 1) % VOCAB]
    assert score_continuations(model, [(context, found), (context, other)], 64).greedy.tolist() == [True, False]


def test_shared_beginnings_are_read_once():
    pairs = some_pairs()
    requests = [([*context, *continuation][:-1], continuation) for context, continuation in pairs]
    read = sum(len(tree.ids) for tree in plant(requests, hidden=1024))
    prefixes = {tuple(sequence[: end + 1]) for sequence, _ in requests for end in range(len(sequence))}
    assert read <= len(prefixes) + 40 < sum(len(sequence) for sequence, _ in requests) / 2
    assert all(len(tree.paths) == 1 for tree in plant(requests, hidden=0))


@pytest.mark.parametrize("name", ["ours", "gemma2", "mamba"])
def test_the_output_matrix_is_applied_to_scored_tokens_alone(name):
    model, given = make(name), []
    model.get_output_embeddings().register_forward_hook(lambda _, arguments, __: given.append(arguments[0].shape[:-1]))
    pairs = [([1, 2, 3, 4, 5, 6], [7]), ([8], [9, 10])]
    reads_trees(model)
    given.clear()
    scores = score_continuations(model, pairs, tokens=64)
    assert given == [(1, 3)]
    assert scores.nats.tolist() == pytest.approx([alone(model, *pair)[0] for pair in pairs], abs=1e-4)


def test_a_model_without_an_output_module_is_scored_too(monkeypatch):
    model = make("ours")
    monkeypatch.setattr(type(model), "get_output_embeddings", lambda self: None)
    pairs = some_pairs()
    scores = score_continuations(model, pairs, tokens=256)
    assert scores.nats.tolist() == pytest.approx([alone(model, *pair)[0] for pair in pairs], abs=1e-4)


def test_a_model_that_ignores_the_tree_is_noticed(monkeypatch):
    """A model that takes positions and a mask and does not use them would give wrong scores without an error."""
    forward = LlamaForCausalLM.forward

    def ignorant(self, input_ids=None, attention_mask=None, position_ids=None, **others):
        return forward(self, input_ids=input_ids, **others)

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**HEADS)).eval()
    assert reads_trees(model)
    monkeypatch.setattr(LlamaForCausalLM, "forward", ignorant)
    assert not reads_trees(model)
    pairs = some_pairs()
    scores = score_continuations(model, pairs, tokens=256)
    assert scores.nats.tolist() == pytest.approx([alone(model, *pair)[0] for pair in pairs], abs=1e-4)


def test_lm_evals_own_class_gives_the_same(tokenizer, tiny_model):
    """Item by item, with contexts that are too long, an empty context, and a text in windows."""
    from lm_eval.models.huggingface import HFLM

    from training.eval.harness.language_model import SharedPrefixLM

    model = tiny_model(context=24)
    texts = [("The river is", f" {word}") for word in ("wide", "wise", "a")]
    texts += [("", "The sun sees it."), ("", "The sun see it."), ("long " * 9, "ago"), ("x" * 20, "y" * 24)]
    requests = [SimpleNamespace(args=pair, task_name="") for pair in texts]
    rolling = [SimpleNamespace(args=("A text of more than one window, and then some more of it.",))]
    ours, stock = (
        cls(model, backend="causal", tokenizer=tokenizer, batch_size=3, max_length=24) for cls in (SharedPrefixLM, HFLM)
    )
    found, expected = ours.loglikelihood(requests), stock.loglikelihood(requests)
    assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert ours.loglikelihood_rolling(rolling) == pytest.approx(stock.loglikelihood_rolling(rolling), abs=1e-4)


def test_templates_are_compiled_once():
    from lm_eval.utils import apply_template, env

    from training.eval.harness.language_model import compiled_templates

    with compiled_templates():
        assert [apply_template("{{a}}!", {"a": a}) for a in "xyx"] == ["x!", "y!", "x!"]
        assert env.from_string("{{a}}!") is env.from_string("{{a}}!")
    assert env.from_string("{{a}}!") is not env.from_string("{{a}}!")
