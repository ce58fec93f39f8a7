"""The networks that the shared tests run over, each beside the stock architecture it must not be worse than."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    stock: str  # the name under which transformers has the architecture
    preset: str
    dials: dict[str, Any]  # of both configurations
    sharded: bool = False  # also the tests of FSDP, which set the number of heads and tie the matrices themselves


SHAPES = {
    f"{heads}_{'tied' if tied else 'untied'}": Shape(
        "Llama",
        "llama",
        {"num_key_value_heads": key_value_heads, "tie_word_embeddings": tied},
        sharded=heads == "multi_head" and not tied,
    )
    for heads, key_value_heads in {"multi_head": 4, "grouped": 2, "multi_query": 1}.items()
    for tied in (False, True)
} | {
    "gpt2": Shape("GPT2", "gpt2", {}),
    "qwen3": Shape("Qwen3", "qwen3", {"num_key_value_heads": 2, "head_dim": 16}),
    "scratch": Shape("Qwen3", "scratch", {"num_key_value_heads": 2}),
}
