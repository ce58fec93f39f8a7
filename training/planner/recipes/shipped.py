"""The plans behind the recipes 10m, 124m, 1b, 7b and 70b: a laptop overnight, then about twenty tokens a parameter.

In a checkout, after a change of the planner:

    python -c "from training.planner.recipes.shipped import write_shipped; write_shipped()"
"""

import shutil
from pathlib import Path

from training.planner.architecture import Architecture
from training.planner.facts.devices import read_market
from training.planner.layout import Layout, Shape
from training.planner.plan import Plan, make_plan
from training.planner.recipes.writer import write_recipe

# Preset; vocabulary, width, MLP width, layers, heads, key and value heads.
_SIZES = {
    "10m": ("qwen3", 4096, 320, 896, 6, 5, 5),
    "124m": ("gpt2", 50304, 768, 3072, 12, 12, 12),
    "1b": ("llama", 32768, 2048, 5632, 22, 16, 4),
    "7b": ("llama", 65536, 4096, 14336, 32, 32, 8),
    "70b": ("llama", 131072, 8192, 28672, 80, 64, 8),
}
_LARGE = {"optimizer": "adamw", "checkpointing": True}
_SHAPES = {
    "10m": Shape(512, 16, 64, 1500),
    "124m": Shape(1024, 32, 512, 4800),
    "1b": Shape(2048, 8, 512, 21_500, optimizer="adamw"),
    "7b": Shape(4096, 4, 1024, 36_000, **_LARGE),
    "70b": Shape(8192, 1, 1024, 168_000, **_LARGE),
}
_LAYOUTS = {
    "10m": ("CPU", 1, "none", 1),
    "124m": ("H100 SXM", 1, "none", 1),
    "1b": ("H100 SXM", 8, "fsdp2", 1),
    "7b": ("H100 SXM", 64, "fsdp2", 2),
    "70b": ("H100 SXM", 1024, "fsdp2", 8),
}
SHIPPED = tuple(_SIZES)


def shipped_plan(name: str) -> Plan:
    """The plan of a shipped recipe."""
    preset, vocab_size, hidden_size, intermediate_size, layers, heads, key_value_heads = _SIZES[name]
    device, devices, sharding, tensor_parallel = _LAYOUTS[name]
    shape = _SHAPES[name]
    architecture = Architecture.from_preset(
        preset,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=shape.sequence_length,
    )
    layout = Layout(read_market().find(device), devices, sharding, tensor_parallel)
    return make_plan(architecture, shape, layout)


def write_shipped() -> None:
    """Write the shipped recipes again, in `recipes` of the current folder."""
    for name in SHIPPED:
        folder = Path("recipes", name)
        shutil.rmtree(folder, ignore_errors=True)
        write_recipe(shipped_plan(name), folder)
