"""Generation: the key-value cache by kind of attention, tokens per second bound by bandwidth, the largest batch."""

from dataclasses import dataclass, replace

from training.planner.architecture import Architecture
from training.planner.facts.devices import Device
from training.planner.units import Estimate

# Share of the memory bandwidth that decoding reaches, reading weights and cache once per token.
BANDWIDTH_REACHED = Estimate(0.4, 0.65, 0.85)
USABLE = 0.92  # of the memory, after context and allocator


@dataclass(frozen=True)
class Inference:
    """Generation with bf16 weights and cache on one device.

    Attributes:
        weights: bytes of the weights.
        cache_per_token: bytes of keys and values per token, in layers without a window.
        cache: bytes of one sequence of `context` tokens.
        caches: the same with multi-head, grouped-query (four query heads a key-value head) and multi-query attention.
        context: tokens of a sequence.
        tokens_per_second: of one sequence; None if the weights do not fit.
        largest_batch: sequences of `context` tokens that fit beside the weights.
        batch_tokens_per_second: of that batch together.
    """

    weights: float
    cache_per_token: float
    cache: float
    caches: dict[str, float]
    context: int
    tokens_per_second: Estimate | None
    largest_batch: int
    batch_tokens_per_second: Estimate | None


def cache_bytes(architecture: Architecture, context: int, bytes_per_value: int = 2) -> float:
    """Bytes of the keys and values of a sequence; a layer with a window keeps only that."""
    positions = sum(min(window or context, context) for window in architecture.windows)
    return 2 * architecture.key_value_width * bytes_per_value * positions


def plan_inference(architecture: Architecture, device: Device, context: int) -> Inference:
    """Memory and speed of generation."""
    weights, cache = 2.0 * architecture.num_parameters, cache_bytes(architecture, context)
    heads = architecture.num_attention_heads
    kinds = {"MHA": heads, "GQA": heads // 4 if heads % 4 == 0 else heads, "MQA": 1}
    caches = {
        kind: cache_bytes(replace(architecture, num_key_value_heads=count), context) for kind, count in kinds.items()
    }
    room = USABLE * device.memory - weights
    batch = int(room // cache) if room > 0 else 0
    bandwidth = device.bandwidth_tb * 1e12

    def speed(sequences: int) -> Estimate:
        # On average a sequence is half as long as at its end.
        return BANDWIDTH_REACHED * (sequences * bandwidth / (weights + sequences * cache / 2))

    return Inference(
        weights,
        cache_bytes(replace(architecture, layer_types=(), sliding_window=None), 1),
        cache,
        caches,
        context,
        speed(1) if room > 0 else None,
        batch,
        speed(batch) if batch else None,
    )
