"""nanochat's `model_NNNNNN.pt`: recognised, and rejected with the parts that no model here has."""

from training.foreign.checkpoint import Checkpoint
from training.foreign.sizes import Sizes
from training.foreign.stock import StockModel

NAME, FILE = "nanochat", None
KEYS = frozenset(
    {
        "transformer.wte.weight",
        *(f"transformer.h.N.attn.{name}.weight" for name in ("c_q", "c_k", "c_v", "c_proj")),
        *(f"transformer.h.N.mlp.{name}.weight" for name in ("c_fc", "c_proj")),
    }
)


def matches(checkpoint: Checkpoint) -> bool:
    """Whether it has the tensors."""
    return checkpoint.names() >= KEYS


def read(checkpoint: Checkpoint, sizes: Sizes) -> StockModel:
    """Raise UserError: the network is neither a Llama nor a Qwen3, and not one of ours."""
    raise checkpoint.error(
        "nanochat normalises queries and keys after the rotation, and without weights; newer versions also have value "
        "embeddings and scalars in each layer. No model here has these, so it cannot be imported; use nanochat itself"
    )
