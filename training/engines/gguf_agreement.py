"""Agreement of a rounded model with the original: perplexity and most likely tokens on held-out text.

llama.cpp rounds more than the weights: on a processor it also rounds the inputs of each product of matrices to the
precision of the weights. Both are done here to a copy of the model, so the measure needs no llama.cpp.
"""

import copy
from dataclasses import dataclass

import gguf
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from training.common.errors import UserError
from training.common.progress import progress_bar
from training.data.shards import check_tokenizer, open_shards
from training.engines.gguf_file import PRECISIONS, as_matrix, is_rounded

HELD_OUT_TOKENS = 16_384  # the first of the validation split


@dataclass
class Agreement:
    """The rounded model beside the original, on the same tokens.

    Attributes:
        tokens: number of predicted tokens.
        perplexity, original_perplexity: of the rounded model and of the original.
        same_token: share of the positions at which both give the highest probability to the same token.
    """

    tokens: int
    perplexity: float
    original_perplexity: float
    same_token: float


@torch.no_grad()
def measure_agreement(model: PreTrainedModel, precision: str, tokens: torch.Tensor) -> Agreement:
    """Compare a model of a stock class with itself in a precision.

    Args:
        precision: a key of `PRECISIONS`.
        tokens: (tokens,) of held-out text. Each is predicted from those before it in its sequence of the context.
    """
    original, rounded = copy.deepcopy(model).float().eval(), round_model(model, precision)
    nats, same, count = torch.zeros(2, dtype=torch.float64), 0, 0
    with progress_bar(total=len(tokens), desc="agreement", unit="token", unit_scale=True, leave=False) as bar:
        for sequence in tokens.split(model.config.max_position_embeddings):
            logits = torch.stack([each(sequence[None]).logits[0, :-1] for each in (original, rounded)])
            for place in range(2):
                nats[place] += F.cross_entropy(logits[place], sequence[1:], reduction="sum").cpu().double()
            likeliest = logits.argmax(-1)  # (2, seq)
            same += int((likeliest[0] == likeliest[1]).sum())
            count += len(sequence) - 1
            bar.update(len(sequence))
    original_perplexity, perplexity = (nats / count).exp().tolist()
    return Agreement(count, perplexity, original_perplexity, same / count)


def held_out_tokens(corpus: str, model: str) -> torch.Tensor:
    """The first tokens of the validation split of a corpus.

    Args:
        model: its folder; the corpus must have its tokenizer.

    Raises:
        UserError: no corpus there, another tokenizer, or an empty split.
    """
    check_tokenizer(corpus, model)
    tokens = open_shards(corpus, "validation").tokens[:HELD_OUT_TOKENS]
    if len(tokens) < 2:
        raise UserError(f"'held_out': the validation split in {corpus} is empty; name a corpus that has one")
    return torch.from_numpy(tokens.astype("int64"))


def round_model(model: PreTrainedModel, precision: str) -> PreTrainedModel:
    """A copy in float32 that computes as llama.cpp does with a file of that precision and an F32 cache."""
    model = copy.deepcopy(model).float().eval()
    for name, parameter in model.named_parameters():
        if is_rounded(name, parameter):
            # A view of the parameter: GPT-2's matrices are rounded along their inputs, too.
            as_matrix(name, parameter.data).copy_(round_rows(as_matrix(name, parameter.data), precision))
    for module in model.modules():
        if isinstance(module, (nn.Linear, Conv1D)):
            module.register_forward_pre_hook(lambda _, inputs: (round_rows(inputs[0], precision), *inputs[1:]))
    return model


def round_rows(tensor: torch.Tensor, precision: str) -> torch.Tensor:
    """A tensor of float32 after a conversion to a precision and back. Its last dimension holds the rows."""
    kind, _ = PRECISIONS[precision]
    rows = gguf.quants.quantize(tensor.contiguous().numpy(), kind)
    return torch.from_numpy(gguf.quants.dequantize(rows, kind)).view(tensor.shape)
