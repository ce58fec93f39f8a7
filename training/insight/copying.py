"""The copying score of each head from the weights: eigenvalues of the circuit from a token to the logit of a token."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from training.insight.attention import Sizes
from training.insight.measures import copying_score


@torch.no_grad()
def copying(model: PreTrainedModel, modules: list[nn.Module], sizes: Sizes) -> torch.Tensor:
    """The copying score of each head, (layers, heads) fp32 on the CPU; NaN where the value weights are not known.

    Args:
        modules: the attention of each layer.

    The circuit of a head is W_U W_O W_V W_E, (vocab, vocab): what the logits gain if the head attends to a token. Its
    eigenvalues other than zero are those of W_V (W_E W_U) W_O, which is only (head_dim, head_dim). Norms with their
    gains, biases and positions are left out.
    """
    embedding, unembedding = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    rows = min(len(embedding), len(unembedding))
    with torch.autocast(embedding.device.type, enabled=False):
        through = embedding[:rows].float().T @ unembedding[:rows].float()  # (hidden, hidden)
        circuits = [_circuits(module, sizes, through) for module in modules]
    eigenvalues = torch.linalg.eigvals(torch.stack(circuits).cpu().nan_to_num())  # (layers, heads, head_dim)
    unknown = torch.stack([circuit.isnan().any() for circuit in circuits]).cpu()
    return copying_score(eigenvalues).masked_fill(unknown[:, None], torch.nan)


def _circuits(module: nn.Module, sizes: Sizes, through: torch.Tensor) -> torch.Tensor:
    """W_V (W_E W_U) W_O of each head of a layer, (heads, head_dim, head_dim); NaN if its weights are not known."""
    heads, size = sizes.heads, sizes.head_dim
    value, output = value_weight(module, sizes), output_weight(module)
    hidden = through.shape[0]
    if value is None or output is None or value.shape[-1] != hidden or output.shape != (hidden, heads * size):
        return through.new_full((heads, size, size), torch.nan)
    values = value.float().repeat_interleave(heads // sizes.key_value_heads, dim=0)  # (heads, head_dim, hidden)
    outputs = output.float().view(hidden, heads, size).transpose(0, 1)  # (heads, hidden, head_dim)
    return values @ through @ outputs


def value_weight(module: nn.Module, sizes: Sizes) -> torch.Tensor | None:
    """The value weights of an attention module, (kv_heads, head_dim, hidden), by the names in common models.

    A layer of its own (Llama, OPT), the last third of GPT-2's, or inside each head's third of GPT-NeoX's.
    """
    width = sizes.key_value_heads * sizes.head_dim
    if hasattr(module, "v_proj"):
        weight = _matrix(module.v_proj)
    elif hasattr(module, "c_attn") or hasattr(module, "qkv_proj"):
        weight = _matrix(getattr(module, "c_attn", None) or module.qkv_proj)[-width:]
    elif hasattr(module, "query_key_value") and sizes.key_value_heads == sizes.heads:
        weight = _matrix(module.query_key_value)
        if weight.shape[0] == 3 * width:
            weight = weight.view(sizes.heads, 3, sizes.head_dim, -1)[:, 2].flatten(0, 1)
    else:
        return None
    return weight.view(sizes.key_value_heads, sizes.head_dim, -1) if weight.shape[0] == width else None


def output_weight(module: nn.Module) -> torch.Tensor | None:
    """The output weights of an attention module, (hidden, heads * head_dim), by the names in common models."""
    names = [name for name in ("o_proj", "c_proj", "out_proj", "dense") if hasattr(module, name)]
    return _matrix(getattr(module, names[0])) if names else None


def _matrix(layer: nn.Module) -> torch.Tensor:
    """The weight of a linear layer as (outputs, inputs); GPT-2 stores it transposed."""
    return layer.weight.T if isinstance(layer, Conv1D) else layer.weight
