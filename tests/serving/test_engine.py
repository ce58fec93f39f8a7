"""The generation engine: answers equal those of `generate`, alone or among others, and end when nobody waits."""

import asyncio
import queue
import time

import pytest
import torch
from tiny_model import ARCHITECTURES, SIZES, SLIDING, build, stir, tokens
from tiny_stages import write_tokenizer
from tokenizers import Tokenizer
from tokenizers.decoders import Metaspace
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from training.serving.engine import Engine, EngineFull, PromptTooLong, Request
from training.serving.sampler import Sampler, choose
from training.serving.settings import AnswerSettings

LENGTHS = (3, 17, 1, 30)  # of prompts


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(write_tokenizer(tmp_path_factory.mktemp("place") / "tokenizer"))


def stock(config_class, **options):
    torch.manual_seed(0)
    config = config_class(**(SIZES | {"max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2} | options))
    return stir(AutoModelForCausalLM.from_config(config)).eval()


STOCK = {
    "stock gpt2": lambda: stock(GPT2Config),
    "stock llama": lambda: stock(LlamaConfig),
    "stock qwen3": lambda: stock(Qwen3Config, head_dim=16),
    "stock gemma2": lambda: stock(Gemma2Config, head_dim=16, **SLIDING),
    "stock mamba": lambda: stock(MambaConfig, state_size=4, num_hidden_layers=2),
}
OURS = {
    name: lambda options=options: build(**options | {"max_position_embeddings": 128})
    for name, options in ARCHITECTURES.items()
}
MODELS = STOCK | OURS


class Received:
    """The pieces of one answer."""

    def __init__(self, engine, request):
        self.queue = queue.Queue()
        self.answer = engine.submit(request, self.queue.put)

    def wait(self):
        """The answer's tokens, once it has ended."""
        self.pieces = [self.queue.get(timeout=30)]
        while self.pieces[-1].finish_reason is None:
            self.pieces.append(self.queue.get(timeout=30))
        assert self.pieces[-1].finish_reason != "error", self.pieces[-1].error
        return self.answer.ids

    def text(self):
        """The answer's text, once it has ended."""
        self.wait()
        return "".join(piece.text for piece in self.pieces)


def prompts(lengths=LENGTHS):
    return [tokens(length, seed=length).tolist() for length in lengths]


def never_ending(model):
    model.generation_config.eos_token_id = None
    return model


@pytest.mark.parametrize("name", MODELS)
def test_greedy_answers_together_are_those_of_generate(name, tokenizer):
    """64 of 64 tokens in fp32, of rows of several lengths that join and leave at different steps."""
    model = never_ending(MODELS[name]())
    lengths = (64, 8, 64, 20)
    expected = [
        model.generate(torch.tensor([prompt]), max_new_tokens=length, do_sample=False)[0, len(prompt) :].tolist()
        for prompt, length in zip(prompts(), lengths)
    ]
    with Engine(model, tokenizer, max_batch=3) as engine:
        settings = [AnswerSettings(temperature=0, max_new_tokens=length) for length in lengths]
        received = [Received(engine, Request(*each)) for each in zip(prompts(), settings)]
        assert [each.wait() for each in received] == expected
        assert engine.batches is (name != "stock mamba")
    assert len({token for ids in expected for token in ids}) > 3  # not one token for ever


@pytest.mark.parametrize("name", ["scratch", "stock gpt2", "sliding"])
def test_a_sampled_answer_does_not_depend_on_its_neighbours(name, tokenizer):
    model = never_ending(MODELS[name]())
    wanted = AnswerSettings(temperature=1.0, top_k=20, top_p=0.95, seed=5, max_new_tokens=30)
    prompt, *others = prompts()
    with Engine(model, tokenizer) as engine:
        alone = Received(engine, Request(prompt, wanted)).wait()
        noise = [Received(engine, Request(other, AnswerSettings(temperature=1.0))) for other in others]
        among = [Received(engine, Request(prompt, wanted)) for _ in range(20)]
        assert [each.wait() for each in among] == [alone] * 20
        other = Received(engine, Request(prompt, wanted.numbered(1))).wait()
        for each in noise:
            each.answer.cancel()
    assert other != alone


def test_sampling_follows_the_distribution():
    """Frequencies of 4,000 tokens against softmax(logits / 0.7) of the 5 most likely, alone and several at a time."""
    model = build("qwen3")
    logits = torch.randn(SIZES["vocab_size"], generator=torch.Generator().manual_seed(0)) * 2
    samplers = []
    for seed in range(8):
        wanted = AnswerSettings(temperature=0.7, top_k=5, seed=seed, max_new_tokens=10)
        samplers.append(Sampler(model, [1], wanted.applied(model.generation_config), wanted))
    counts, top = torch.zeros_like(logits), (logits / 0.7).topk(5)
    for number in range(500):
        together = samplers if number % 2 else samplers[::-1]
        for token in choose(together, logits.repeat(8, 1)):
            counts[token] += 1
    assert counts.sum() == counts[top.indices].sum() == 4000
    assert counts[top.indices] / 4000 == pytest.approx(top.values.softmax(dim=-1), abs=0.03)


def test_bf16_stays_bf16(tokenizer):
    model = never_ending(build("llama", max_position_embeddings=128)).to(torch.bfloat16)
    with Engine(model, tokenizer) as engine:
        settings = AnswerSettings(temperature=0, max_new_tokens=20)
        received = [Received(engine, Request(prompt, settings)) for prompt in prompts()]
        assert all(len(each.wait()) == 20 for each in received)
    assert model.dtype == torch.bfloat16


def test_settings_of_generate_mean_the_same(tokenizer):
    """Penalties, suppressed tokens and biases, from the request and from the model's own settings."""
    model = never_ending(build("qwen3", max_position_embeddings=128))
    model.generation_config.update(suppress_tokens=[3, 4, 5, 6], repetition_penalty=1.3, no_repeat_ngram_size=3)
    prompt = prompts()[1]
    expected = model.generate(
        torch.tensor([prompt]), max_new_tokens=40, do_sample=False, sequence_bias={(7,): 2.0, (9,): -1.5}
    )[0, len(prompt) :].tolist()
    with Engine(model, tokenizer) as engine:
        wanted = AnswerSettings(temperature=0, max_new_tokens=40, logit_bias={7: 2, 9: -1.5})
        assert Received(engine, Request(prompt, wanted)).wait() == expected
        banned = AnswerSettings(temperature=0, max_new_tokens=40, logit_bias={token: -100 for token in set(expected)})
        assert not set(Received(engine, Request(prompt, banned)).wait()) & set(expected)
        penalized = AnswerSettings(temperature=0, max_new_tokens=40, frequency_penalty=2, repetition_penalty=1.0)
        assert Received(engine, Request(prompt, penalized)).wait() != expected


def test_a_full_context_ends_an_answer(tokenizer):
    model = never_ending(build("gpt2", max_position_embeddings=64))  # learned positions: one more would fail
    with Engine(model, tokenizer) as engine:
        received = Received(engine, Request(prompts((40,))[0], AnswerSettings(max_new_tokens=1000)))
        assert len(received.wait()) == 24 and received.pieces[-1].finish_reason == "length"
        with pytest.raises(PromptTooLong, match="64"):
            engine.submit(Request(prompts((64,))[0]), print)
        empty = Received(engine, Request(prompts((3,))[0], AnswerSettings(max_new_tokens=0)))
        assert empty.wait() == [] and empty.pieces[-1].finish_reason == "length"


def test_the_end_token_and_stop_strings(tokenizer):
    """A stop string ends the text before it, wherever the borders of tokens lie."""
    model = never_ending(build("llama", max_position_embeddings=128, vocab_size=len(tokenizer)))
    prompt = prompts()[0]
    with Engine(model, tokenizer) as engine:

        def received(*stops):
            return Received(engine, Request(prompt, AnswerSettings(temperature=0, max_new_tokens=60, stop=list(stops))))

        whole = received()
        text, ids = whole.text(), whole.answer.ids
        assert text == tokenizer.decode(ids, skip_special_tokens=True)
        for begin in range(5, 25, 4):
            stop = text[begin : begin + 6]
            for stops in ([stop], ["never there", stop, ""], [stop, text[begin + 20 :]]):
                stopped = received(*stops)
                assert stopped.text() == text[: text.index(stop)] and stopped.pieces[-1].finish_reason == "stop"
        assert received(text[-3:] + "x").text() == text
        model.generation_config.stop_strings = stop  # of a model, one text or a list
        assert received().text() == text[: text.index(stop)]
        model.generation_config.stop_strings = None
        model.generation_config.eos_token_id = [ids[4]]
        ended = received()
        assert ended.wait() == ids[: ids.index(ids[4]) + 1] and ended.pieces[-1].finish_reason == "stop"


def test_a_completion_keeps_the_space_before_its_first_word():
    """SentencePiece's tokenizers remove it at the beginning of a text."""
    words = {f"▁w{number}": number for number in range(SIZES["vocab_size"])}
    backend = Tokenizer(WordLevel(words, unk_token="▁w0"))
    backend.decoder = Metaspace()
    model, prompt = never_ending(build("llama")), prompts()[0]
    with Engine(model, PreTrainedTokenizerFast(tokenizer_object=backend)) as engine:
        settings = AnswerSettings(temperature=0, max_new_tokens=3)
        continued = Received(engine, Request(prompt, settings, continues=True))
        text = Received(engine, Request(prompt, settings)).text()
        assert continued.text() == " " + text == "".join(f" w{token}" for token in continued.answer.ids)


def test_probabilities_of_tokens(tokenizer):
    model = never_ending(build("qwen3", vocab_size=len(tokenizer)))
    prompt = prompts()[0]
    with torch.no_grad():
        expected = model(torch.tensor([prompt])).logits[0, -1].log_softmax(dim=-1)
    with Engine(model, tokenizer) as engine:
        settings = AnswerSettings(temperature=2.0, seed=1, max_new_tokens=10, top_logprobs=5)
        received = Received(engine, Request(prompt, settings))
        ids = received.wait()
    first = received.pieces[0]
    assert [piece.token.id for piece in received.pieces] == ids
    assert first.token.logprob == pytest.approx(float(expected[ids[0]]), abs=1e-4)
    assert [each.id for each in first.likely] == expected.topk(5).indices.tolist()
    assert b"".join(piece.token.bytes for piece in received.pieces).decode(errors="replace") == tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["scratch", "stock mamba"])
def test_a_cancelled_answer_ends_within_a_step(name, tokenizer):
    model = never_ending(MODELS[name]())
    model.config.max_position_embeddings = 10**6  # rotary or none: no table ends
    with Engine(model, tokenizer, max_batch=1) as engine:
        endless = Received(engine, Request(prompts()[0], AnswerSettings(temperature=1.0, max_new_tokens=10**6)))
        waiting = Received(engine, Request(prompts()[0], AnswerSettings(max_new_tokens=10**6)))
        waiting.answer.cancel()
        while len(endless.answer.ids) < 3:
            time.sleep(0.01)
        endless.answer.cancel()
        length = len(endless.answer.ids)
        assert len(Received(engine, Request(prompts()[1], AnswerSettings(max_new_tokens=3))).wait()) == 3
        assert len(endless.answer.ids) <= length + 2 and not waiting.answer.ids


def test_the_queue_has_a_limit(tokenizer):
    model = never_ending(build("llama", max_position_embeddings=10**6))
    with Engine(model, tokenizer, max_batch=1, max_queue=2) as engine:
        request = Request(prompts()[0], AnswerSettings(max_new_tokens=10**6))
        first = Received(engine, request)
        while not first.answer.ids:
            time.sleep(0.01)
        waiting = [Received(engine, request), Received(engine, request)]
        with pytest.raises(EngineFull, match="2 answers"):
            engine.submit(request, print)
        waiting[0].answer.cancel()
        Received(engine, request)
    assert first.queue.queue[-1].finish_reason == "error" and not engine.is_alive  # the engine was closed
    with pytest.raises(EngineFull):
        engine.submit(request, print)


def test_an_answer_that_fails_costs_only_itself(tokenizer):
    """A step of the whole batch fails, then the prompt of the answer that is to blame; NaN logits end one answer."""
    model = never_ending(build("qwen3", max_position_embeddings=128))
    poison, nan = 95, 94
    good, bad, blank = tokens(5, seed=1) % 90 + 1, torch.tensor([poison, 3, 2]), torch.tensor([nan, 3, 2])
    forward = model.forward

    def failing(input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, **options):
        if past_key_values.get_seq_length() and (position_ids == 6).any() and (input_ids[:, 0] == failing.token).any():
            raise RuntimeError("CUDA error: out of luck")
        if input_ids.shape[1] > 4 and input_ids[0, 0] == poison:
            raise RuntimeError("CUDA error: out of luck")
        output = forward(input_ids, attention_mask, position_ids, past_key_values, **options)
        if input_ids.shape[1] > 1 and input_ids[0, 0] == nan:
            output.logits[:] = float("nan")
        return output

    settings = AnswerSettings(temperature=0, max_new_tokens=40, logit_bias={poison: -100, nan: -100})
    expected = {}
    with Engine(model, tokenizer) as engine:
        for prompt in (good, bad):
            expected[prompt] = Received(engine, Request(prompt.tolist(), settings)).wait()
    failing.token = expected[bad][3]  # at position 6
    model.forward = failing
    with Engine(model, tokenizer) as engine:
        answers = [Received(engine, Request(prompt.tolist(), settings)) for prompt in (good, bad, good, blank)]
        assert answers[0].wait() == answers[2].wait() == expected[good]
        for each, said in ((answers[1], "CUDA error"), (answers[3], "NaN")):
            with pytest.raises(AssertionError, match=said):
                each.wait()
        assert engine.is_alive and Received(engine, Request(good.tolist(), settings)).wait() == expected[good]


def test_pieces_for_asynchronous_code(tokenizer):
    model = never_ending(build("llama", max_position_embeddings=10**6, vocab_size=len(tokenizer)))

    async def use(engine):
        settings = AnswerSettings(seed=1, max_new_tokens=8)
        requests = [Request(prompts()[0], settings.numbered(number)) for number in range(3)]
        texts = ["", "", ""]
        async with engine.answer(*requests) as pieces:
            async for number, piece in pieces:
                texts[number] += piece.text
        assert texts == [tokenizer.decode(each.ids, skip_special_tokens=True) for each in pieces.answers]
        async with engine.answer(Request(prompts()[0], AnswerSettings(max_new_tokens=10**6))) as pieces:
            async for _ in pieces:
                break
        await asyncio.sleep(0.2)
        assert not engine.batch.answers  # leaving the block cancelled it

    with Engine(model, tokenizer) as engine:
        asyncio.run(use(engine))
