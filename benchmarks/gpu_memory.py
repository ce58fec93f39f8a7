"""Memory on a device: the loss at a large vocabulary, and what the planner predicts for training steps."""

import torch

from benchmarks import gpu_speed
from benchmarks.gpu_correctness import Row, Setting
from benchmarks.peak_memory import peak_bytes
from benchmarks.planner import Case, case, memory_row, two_steps
from modeling_scratch import ScratchConfig
from training.planner.facts.devices import read_market
from training.planner.layout import Layout

GB = 1e9
LIMIT = 0.05  # of the planner's error

CHECKPOINTED, ADAMW = {"checkpointing": True}, {"optimizer": "adamw"}
CASES = [
    case("gpt2", 768, 12, 50304, 1024, 16, bf16=True),
    case("gpt2", 768, 12, 50304, 1024, 16, bf16=True, **ADAMW, **CHECKPOINTED),
    case("llama", 768, 12, 50304, 1024, 4, bf16=True, **ADAMW),
    case("llama", 768, 12, 50304, 1024, 16, bf16=True, **CHECKPOINTED),
    case("qwen3", 768, 12, 50304, 1024, 16, bf16=True),
    case("qwen3", 768, 12, 50304, 4096, 4, bf16=True, **ADAMW, **CHECKPOINTED),
    case("scratch", 768, 12, 50304, 1024, 16, bf16=True),
    case("scratch", 768, 12, 50304, 1024, 16, bf16=True, **ADAMW, **CHECKPOINTED),
    case("llama", 2048, 22, 32768, 2048, 4, bf16=True, num_key_value_heads=4, **ADAMW),
    case("llama", 2048, 22, 32768, 2048, 8, bf16=True, num_key_value_heads=4, **CHECKPOINTED),
    case("llama", 768, 12, 131072, 1024, 8, bf16=True, **ADAMW),
    case("llama", 768, 12, 131072, 1024, 8, bf16=True, **ADAMW, chunked_loss=False),
]
SMALL_CASES = [case("gpt2", 64, 2, 512, 32, 2, bf16=True, **CHECKPOINTED)]


def cases(setting: Setting) -> list[Case]:
    """Training steps whose memory is predicted and measured."""
    return SMALL_CASES if setting.small else CASES


def planned(setting: Setting, variant: Case) -> list[Row]:
    """Peak memory of two training steps, and the planner's prediction."""
    gpu_speed.free(setting.device)
    two_steps(SMALL_CASES[0], setting.device)  # the first products allocate what libraries keep
    device = gpu_speed.data_sheet(setting.device) or read_market().find("CPU" if setting.small else "H200")
    row = memory_row(variant, Layout(device), peak_bytes(lambda: two_steps(variant, setting.device), setting.device))
    gpu_speed.free(setting.device)
    return [row if setting.small else row | {"passed": abs(row["error"]) <= LIMIT}]


def loss_memory(setting: Setting) -> list[Row]:
    """Peak memory and time of forward and backward at a vocabulary of 131,072: the loss without logits, and with them.

    One layer of the 1B model and its output matrix, in bf16. The peak is what the pass takes on top of the weights,
    their gradients included.
    """
    gpu_speed.free(setting.device)
    vocab_size, length, batch = (1024, 64, 2) if setting.small else (131072, 4096, 2)
    preset, sizes, _ = gpu_speed.models(setting)["tiny" if setting.small else "1B"]
    sizes = sizes | {"vocab_size": vocab_size, "num_hidden_layers": 1, "max_position_embeddings": length}
    model = gpu_speed.build(setting, ScratchConfig.from_preset(preset, **sizes)).train()
    input_ids = torch.randint(vocab_size, (batch, length), device=setting.device)
    rows = []
    for way, skip in (("without logits", True), ("with logits", False)):

        def work(skip: bool = skip) -> None:
            with torch.autocast(setting.device.type, torch.bfloat16):
                loss = model(input_ids, labels=input_ids, use_cache=False, skip_logits=skip).loss
            loss.backward()
            model.zero_grad()

        work()  # the first call allocates what libraries keep
        rows.append(
            {
                "loss": way,
                "tokens": input_ids.numel(),
                "vocabulary": vocab_size,
                "peak (GB)": peak_bytes(work, setting.device) / GB,
                "ms": gpu_speed.repeat(work, setting.device, 0.05 if setting.small else 1.0) * 1000,
            }
        )
    gpu_speed.free(setting.device)
    return rows
