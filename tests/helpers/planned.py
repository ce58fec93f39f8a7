"""Tiny networks and devices for the tests of the planner."""

import torch

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from training.planner.facts.devices import Device

SIZES = {
    "vocab_size": 48,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
}
CPU = Device(name="CPU", teraflops=0.1, memory_gb=16, bandwidth_tb=0.04, source="a test", date="2026-01-31", cpu=True)
GPU = Device(name="GPU", teraflops=100, memory_gb=24, bandwidth_tb=1, watts=300, source="a test", date="2026-01-31")


def network(preset: str, device: str = "meta", **options) -> ScratchForCausalLM:
    config = ScratchConfig.from_preset(preset, **(SIZES | options))
    with torch.device(device):
        return ScratchForCausalLM._from_config(config, attn_implementation="eager")
