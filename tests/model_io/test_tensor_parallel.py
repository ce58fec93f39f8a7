"""Tensor parallelism: which models a group of processes can divide. test_cluster.py trains with it."""

import pytest
from messages import refused
from tiny_model import build

from training.model_io.tensor_parallel import check_divisible


@pytest.mark.parametrize(
    "options, key",
    [
        ({"num_attention_heads": 3, "num_key_value_heads": 3, "hidden_size": 48}, "model.num_attention_heads"),
        ({"num_attention_heads": 4, "num_key_value_heads": 1}, "model.num_key_value_heads"),
        ({"intermediate_size": 49}, "model.intermediate_size"),
        ({"vocab_size": 97}, "model.vocab_size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_uneven_sizes_are_refused(options, key):
    config = build(**options).config
    check_divisible(config, 1)
    with refused(key, "2 tensor-parallel processes"):
        check_divisible(config, 2)
