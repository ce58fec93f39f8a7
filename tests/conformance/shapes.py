"""The networks that the shared tests run over: Llama and ours in its shapes, and ours in other presets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    preset: str
    key_value_heads: int  # of 4 heads
    tied: bool
    beside: str  # the shape of Llama that it must not be worse than
    # Whether to run also the tests of FSDP, which set the heads and tie the matrices themselves, and those of all
    # classes, whose outputs do not depend on the shape: one shape has them.
    whole: bool = False
    lacks: str | None = None  # what Llama has and this network has not, as the names of tests have it


LLAMA = {
    f"{heads}_{'tied' if tied else 'untied'}": Shape(
        "llama",
        count,
        tied,
        beside=f"{heads}_{'tied' if tied else 'untied'}",
        whole=heads == "multi_head" and not tied,
    )
    for heads, count in {"multi_head": 4, "grouped": 2, "multi_query": 1}.items()
    for tied in (False, True)
}
OURS = LLAMA | {
    "gpt2": Shape("gpt2", 4, tied=True, beside="multi_head_tied", lacks="rope"),
    "qwen3": Shape("qwen3", 2, tied=False, beside="grouped_untied"),
    "scratch": Shape("scratch", 4, tied=False, beside="multi_head_untied", whole=True),
}
