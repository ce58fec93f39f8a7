"""The clock of the training loop, counted operations, and the rate of the device."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from training.common.device import matrix_product_rate
from training.common.metrics import as_duration, in_words
from training.pretraining import throughput
from training.pretraining.throughput import Throughput, matrix_parameters, operations_per_token

SIZES = {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 3, "max_position_embeddings": 24}


def network(preset: str, **dials) -> ScratchForCausalLM:
    config = ScratchConfig.from_preset(preset, **(SIZES | {"num_attention_heads": 4} | dials))
    return ScratchForCausalLM._from_config(config, attn_implementation="eager")


@pytest.mark.parametrize(
    "preset, dials", [("scratch", {}), ("gpt2", {}), ("qwen3", {"num_key_value_heads": 2, "head_dim": 16})]
)
def test_operations_are_those_that_torch_counts_but_for_the_masked(preset, dials):
    model = network(preset, **dials)
    input_ids = torch.randint(48, (2, 24), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model(input_ids, labels=input_ids, use_cache=False).loss.backward()
    masked = 12 * 3 * model.config.num_attention_heads * model.config.head_dim * (24 - 12.5)  # mean of 1, 2, ... 24
    operations = operations_per_token(model, model.config, 24)
    assert counter.get_total_flops() == (operations + masked) * input_ids.numel()


def test_a_sliding_layer_attends_to_its_window():
    whole = network("qwen3")
    layer_types = ["sliding_attention", "full_attention", "sliding_attention"]
    sliding = network("qwen3", sliding_window=6, layer_types=layer_types)
    saved = operations_per_token(whole, whole.config, 24) - operations_per_token(sliding, sliding.config, 24)
    seen = sum(min(position + 1, 6) for position in range(24)) / 24
    assert saved == 2 * 12 * 32 * (12.5 - seen)
    # Shorter sequences than the window.
    assert operations_per_token(sliding, sliding.config, 4) == operations_per_token(whole, whole.config, 4)


def test_a_tied_embedding_counts_once_and_a_looked_up_one_not_at_all():
    tied, untied = (network("llama", tie_word_embeddings=tie) for tie in (True, False))
    assert matrix_parameters(tied) == matrix_parameters(untied)
    everything = sum(parameter.numel() for parameter in untied.parameters())
    assert matrix_parameters(untied) == everything - 48 * 32 - (2 * 3 + 1) * 32  # and the norms


def test_measuring_the_device_leaves_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert matrix_product_rate(torch.device("cpu"), torch.float32, budget=0.01) > 1e8
    assert torch.equal(torch.rand(2), expected)


@pytest.fixture
def clock(monkeypatch):
    """The time, to be set by the test."""
    now = [100.0]
    monkeypatch.setattr(throughput.time, "monotonic", lambda: now[0])
    return now


def test_pauses_do_not_count(clock):
    meter = Throughput(torch.device("cpu"), tokens_per_step=50, operations_per_token=4, rate=1000.0)
    meter.seconds_before = 7.0
    meter.start(step=10)
    clock[0] += 4
    with meter.paused():
        clock[0] += 30
        assert meter.seconds == 11.0
    clock[0] += 1
    assert meter.seconds == 12.0
    assert meter.read(step=12) == {"tokens_per_second": 20, "mfu": 0.08}
    clock[0] += 2
    assert meter.read(step=13) == {"tokens_per_second": 25, "mfu": 0.1}
    # Three steps in 37 seconds, pauses included, and three to go.
    assert meter.time_left(step=13, max_steps=16) == 37.0


def test_a_record_in_words():
    record = {"loss": 3.21049, "bits_per_byte": 1.5, "learning_rate": 0.02, "grad_norm": 0.4567}
    record |= {"tokens_per_second": 12345, "mfu": 0.456}
    words = in_words(record)
    assert words == "loss 3.210, 1.500 bits/byte, lr 0.02, gradient 0.46, 12,345 tokens/s, MFU 46%"
    assert [as_duration(seconds) for seconds in (4.4, 61, 3600 * 3 + 61)] == ["0:04", "1:01", "3:01:01"]
