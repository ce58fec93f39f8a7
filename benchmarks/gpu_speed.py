"""Speed on a device: training by sequence length, and generation by batch.

Rates are compared with what the same device does in this process: its fastest square matrix product in bf16, and its
fastest read of a large buffer. The data sheet's figures stand beside them where the planner's table has the device.
"""

import gc
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.gpu_correctness import Row, Setting
from benchmarks.model import memory_read, our_loss, training_step
from modeling_scratch import ScratchConfig, ScratchForCausalLM
from training.common.device import matrix_product_rate, seconds
from training.machine.attention import pick_attention
from training.planner.architecture import Architecture
from training.planner.facts.devices import Device, read_market
from training.planner.flops import flops_per_token
from training.planner.inference import plan_inference
from training.planner.layout import Layout, Shape
from training.planner.speed import step_time
from training.pretraining.throughput import matrix_parameters

GB = 1e9
BF16 = torch.bfloat16

# By name: preset, sizes, and tokens of a training step.
Model = tuple[str, dict[str, int], int]
MODELS: dict[str, Model] = {
    "124M": (
        "gpt2",
        {"vocab_size": 50304, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
        32768,
    ),
    "1B": (
        "llama",
        {
            "vocab_size": 32768,
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 22,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
        },
        16384,
    ),
}
TINY: Model = ("llama", {"vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}, 128)


def models(setting: Setting) -> dict[str, Model]:
    """The models of the sections below."""
    return {"tiny": TINY} if setting.small else MODELS


def lengths(setting: Setting) -> tuple[int, ...]:
    """Their training sequences, in tokens."""
    return (32,) if setting.small else (1024, 4096, 16384)


def batches(setting: Setting) -> tuple[int, ...]:
    """Sequences generated at once."""
    return (1, 4) if setting.small else (1, 32)


def free(device: torch.device) -> None:
    """Give back what the section before has left."""
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def config_of(setting: Setting, name: str, length: int) -> ScratchConfig:
    """The configuration of a model for sequences of `length` tokens."""
    preset, sizes, _ = models(setting)[name]
    return ScratchConfig.from_preset(preset, **sizes, max_position_embeddings=length)


def build(setting: Setting, config: ScratchConfig, attention: str = "sdpa") -> nn.Module:
    """The network with random fp32 weights, drawn on the device itself."""
    torch.manual_seed(0)
    with setting.device:
        return ScratchForCausalLM._from_config(config, attn_implementation=attention).float()


def device_rates(setting: Setting) -> list[Row]:
    """Matrix products and memory reads, the references of the other sections."""
    nominal = data_sheet(setting.device)
    return [
        {
            "device": nominal.name if nominal else setting.device.type,
            "matrix product (TFLOP/s)": matrix_product_rate(setting.device, BF16, reference_seconds(setting)) / 1e12,
            "data sheet (TFLOP/s)": nominal.teraflops if nominal else math.nan,
            "memory read (TB/s)": read_rate(setting) / 1e12,
            "data sheet (TB/s)": nominal.bandwidth_tb if nominal else math.nan,
        }
    ]


def data_sheet(device: torch.device) -> Device | None:
    """The row of the planner's table for a GPU, by the words of its name; None if there is none."""
    if device.type != "cuda":
        return None
    words = set(re.split(r"[\s-]+", torch.cuda.get_device_name(device)))
    named = {name: row for row in read_market().devices for name in (row.name, *row.aliases)}
    matching = [name for name in named if words.issuperset(re.split(r"[\s-]+", name))]
    return named[max(matching, key=len)] if matching else None


def reference_seconds(setting: Setting) -> float:
    """For which a reference is measured."""
    return 0.05 if setting.small else 1.0


def read_rate(setting: Setting) -> float:
    """Bytes per second of the fastest read of a buffer larger than any cache."""
    read, size = memory_read(setting.device)
    read()
    return size / min(seconds(read, setting.device) for _ in range(3 if setting.small else 20))


def repeat(work: Callable[[], Any], device: torch.device, budget: float) -> float:
    """Mean seconds of a call, over as many as fill `budget` seconds, after two that do not count."""
    work()
    once = seconds(work, device)
    count = max(2, math.ceil(budget / max(once, 1e-6)))
    return seconds(lambda: [work() for _ in range(count)], device) / count


def training(setting: Setting, name: str, length: int) -> list[Row]:
    """Training steps in bf16 of a model at one sequence length: compiled, with AdamW and the loss without logits.

    MFU is given in both conventions: the causal half of attention over the measured matrix product, as in
    metrics.jsonl; and PaLM's full square over the data sheet's rate, as most publications do.
    """
    free(setting.device)
    config, compiled = config_of(setting, name, length), setting.device.type == "cuda"
    model = build(setting, config, pick_attention(setting.device, length, compiled)).train()
    if compiled:
        model.compile_regions()
    batch = max(1, models(setting)[name][2] // length)
    input_ids = torch.randint(config.vocab_size, (batch, length), device=setting.device)
    rate = matrix_product_rate(setting.device, BF16, reference_seconds(setting))
    step = training_step(model, our_loss, input_ids, BF16)
    step_seconds = repeat(step, setting.device, budget=0.1 if setting.small else 3.0)
    tokens_per_second = batch * length / step_seconds
    architecture, nominal = Architecture.from_config(config), data_sheet(setting.device)
    flops = flops_per_token(architecture, length)
    planned = math.nan
    if nominal:
        shape = Shape(sequence_length=length, micro_batch=batch, global_batch=batch, optimizer="adamw")
        planned = step_time(architecture, shape, Layout(nominal)).expected
    row = {
        "model": name,
        "sequence": length,
        "batch": batch,
        "step (ms)": step_seconds * 1000,
        "planned (ms)": planned * 1000,
        "tokens/s": tokens_per_second,
        "MFU, causal, of the measured rate": flops.causal * tokens_per_second / rate,
        "MFU, PaLM, of the data sheet": flops.palm * tokens_per_second / nominal.rate if nominal else math.nan,
    }
    del model, step
    free(setting.device)
    return [row]


def decoding(setting: Setting, name: str, batch: int) -> list[Row]:
    """Greedy generation in bf16 with the default cache, as tokens per second and as a share of the memory's bandwidth.

    A token needs all weights of matrix products once a batch, and the keys and values so far of every sequence.
    """
    free(setting.device)
    prompt_length, new = (8, 8) if setting.small else (128, 256)
    config = config_of(setting, name, prompt_length + new)
    model = build(setting, config).to(BF16).eval()
    prompt = torch.randint(config.vocab_size, (batch, prompt_length), device=setting.device)
    options = {"attention_mask": torch.ones_like(prompt), "min_new_tokens": new, "max_new_tokens": new}
    generate = partial(model.generate, prompt, do_sample=False, **options)
    call_seconds = repeat(generate, setting.device, budget=0.1 if setting.small else 2.0)
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * BF16.itemsize  # of a token
    read = matrix_parameters(model) * BF16.itemsize + batch * cache * (prompt_length + new / 2)
    read_per_second = read * new / call_seconds
    nominal, planned = data_sheet(setting.device), math.nan
    if nominal and batch == 1:
        planned = plan_inference(Architecture.from_config(config), nominal, prompt_length + new)
        planned = planned.tokens_per_second.expected
    row = {
        "model": name,
        "batch": batch,
        "tokens/s": batch * new / call_seconds,
        "planned": planned,
        "ms per step": call_seconds / new * 1000,
        "read (GB/s)": read_per_second / GB,
        "of the measured bandwidth": read_per_second / read_rate(setting),
        "of the data sheet's": read_per_second / (nominal.bandwidth_tb * 1e12) if nominal else math.nan,
    }
    del model, generate
    free(setting.device)
    return [row]
