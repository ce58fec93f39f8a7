"""Memory: the formulas against counted storages, layouts, and what fits."""

from dataclasses import replace

import pytest
from messages import refused
from planned import CPU, GPU

from modeling_scratch import ScratchConfig
from training.planner.activations import layer_bytes
from training.planner.architecture import Architecture
from training.planner.count import count_peak, count_step
from training.planner.layout import Layout, Shape
from training.planner.memory import largest_micro_batch, peak_memory
from training.planner.published import read_published
from training.planner.sizes import architecture_of_size

SIZES = {"hidden_size": 128, "num_attention_heads": 4, "max_position_embeddings": 256, "intermediate_size": 320}
SHAPE = Shape(sequence_length=256, micro_batch=4, global_batch=4)
CASES = {
    "muon": ("llama", {"num_key_value_heads": 2}, {}),
    "fp32": ("qwen3", {}, {"bf16": False}),
    "recomputed": ("llama", {}, {"checkpointing": True, "optimizer": "adamw"}),
    "eager": ("gpt2", {}, {"attention": "eager"}),
    "blockwise": ("llama", {"max_position_embeddings": 512}, {"attention": "blockwise", "sequence_length": 512}),
    "soft cap": ("scratch", {}, {"checkpointing": True}),
    "window": ("qwen3", {"sliding_window": 64}, {}),
    "logits": ("gpt2", {}, {"chunked_loss": False}),
    "accumulated": ("llama", {}, {"global_batch": 8}),
}


def config(preset: str, layers: int = 2, **options) -> ScratchConfig:
    return ScratchConfig.from_preset(preset, vocab_size=4096, num_hidden_layers=layers, **(SIZES | options))


@pytest.mark.parametrize("name", CASES)
def test_formulas_equal_the_count_peak(name):
    preset, options, run = CASES[name]
    network, shape = config(preset, **options), replace(SHAPE, **run)
    counted = count_step(network, shape).peak
    planned = peak_memory(Architecture.from_config(network), shape, Layout(CPU)).allocated
    assert planned == pytest.approx(counted, rel=0.02)


def test_two_and_three_layers_tell_the_peak_of_more():
    network, shape = config("llama", layers=4), replace(SHAPE, optimizer="adamw")
    assert count_peak(network, shape) == pytest.approx(count_step(network, shape).peak, rel=0.001)


def test_sharding_divides_the_states():
    model = architecture_of_size(1e9)
    shape = replace(SHAPE, optimizer="adamw")
    states = {}
    for kind in ("ddp", "zero2", "zero3", "fsdp2"):
        memory = peak_memory(model, replace(shape, global_batch=64), Layout(GPU, 8, kind))
        states[kind] = memory.weights + memory.optimizer
    assert states["ddp"] == 12 * model.num_parameters
    assert states["zero2"] == pytest.approx((2 + 12 / 8) * model.num_parameters)
    assert states["zero3"] == pytest.approx(14 / 8 * model.num_parameters)
    assert states["fsdp2"] == pytest.approx(12 / 8 * model.num_parameters)


def test_replicas_hold_the_same_states_and_tensor_parallelism_divides_layers():
    model = architecture_of_size(7e9)
    whole, hybrid = (peak_memory(model, SHAPE, Layout(GPU, 16, "fsdp2", replicas=count)) for count in (1, 2))
    assert hybrid.weights == 2 * whole.weights
    parallel = peak_memory(model, SHAPE, Layout(GPU, 16, "fsdp2", tensor_parallel=4))
    assert parallel.activations < whole.activations


def test_ddp_has_buckets_beside_the_gradients():
    model = architecture_of_size(124e6)
    assert peak_memory(model, SHAPE, Layout(GPU, 2, "ddp")).buffers >= 4 * model.num_parameters


def test_the_largest_micro_batch_fits_and_one_more_does_not():
    model, layout = architecture_of_size(124e6), Layout(GPU)
    most = largest_micro_batch(model, SHAPE, layout)
    for size, fits in ((most, True), (most + 1, False)):
        needed = peak_memory(model, replace(SHAPE, micro_batch=size), layout).needed
        assert (needed <= GPU.memory) is fits
    assert largest_micro_batch(architecture_of_size(70e9), SHAPE, layout) == 0


def test_published_memory_falls_as_states_are_spread():
    """torchtitan, Llama-3.1-8B: from 8 to 128 GPUs measured 15.4 (eager) and 15.0 GiB (compiled) less."""
    model = next(run for run in read_published() if run.name == "Llama-3 8B").architecture
    shape = Shape(sequence_length=8192, micro_batch=2, global_batch=256, optimizer="adamw", checkpointing=True)
    few, many = (peak_memory(model, shape, Layout(GPU, count, "fsdp2")).allocated for count in (8, 128))
    assert (few - many) / 2**30 == pytest.approx(15.2, rel=0.07)


@pytest.mark.parametrize(
    "values, key",
    [
        ({"devices": 6, "sharding": "ddp", "tensor_parallel": 4}, "devices"),
        ({"devices": 2, "sharding": "none"}, "sharding"),
    ],
    ids=["indivisible", "none"],
)
def test_a_layout_that_does_not_divide(values, key):
    with refused(key):
        Layout(GPU, **values)


def test_a_model_is_whole_on_each_device_before_it_is_sharded():
    model = architecture_of_size(7e9)
    loading = {parallel: peak_memory(model, SHAPE, Layout(GPU, 8, "fsdp2", parallel)).loading for parallel in (1, 4)}
    assert loading[1] > 4 * model.num_parameters > 2 * loading[4]


def test_engines_that_hook_the_output_matrix_need_all_logits():
    model, shape = architecture_of_size(1e9), replace(SHAPE, micro_batch=16, sequence_length=2048)
    logits = {kind: peak_memory(model, shape, Layout(GPU, 8, kind)).logits for kind in ("ddp", "fsdp2")}
    assert logits["fsdp2"] > 12 * model.vocab_size * 16 * 2048 > logits["ddp"]


@pytest.mark.parametrize(
    "sizes, units",
    [
        ({"intermediate_size": 11008}, 45.5),
        ({"intermediate_size": 14336, "num_key_value_heads": 8}, 49.0),
    ],
    ids=["llama-7b", "llama-3-8b"],
)
def test_bytes_of_a_layer_in_units_of_its_width(sizes, units):
    """bf16 without recomputation, RMSNorm written in fp32: more than the 34 of GPT-3's layer."""
    model = Architecture.from_preset("llama", hidden_size=4096, num_attention_heads=32, **sizes)
    assert layer_bytes(model, SHAPE, cpu=False) / 4096 == pytest.approx(units, rel=0.002)
