"""Cross entropy straight from hidden states: the logits of all tokens are never in memory together.

A vocabulary of 128k makes logits the largest tensor of a training step by far, and the usual way holds several copies
of it. Here a few rows at a time become logits, loss and gradient, and are forgotten again: the gradient of cross
entropy, softmax minus one-hot, is known as soon as the loss is. The idea is that of Cut Your Losses
(https://arxiv.org/abs/2411.09009) and Liger Kernel (https://arxiv.org/abs/2410.10989), in plain PyTorch.
"""

from collections.abc import Callable

import torch
from torch import nn

IGNORE_INDEX = -100  # the label of a token that is not scored
# Rows whose logits are in memory together, in the precision of the matrix product. An accelerator wants large products.
BLOCK_ON_PROCESSOR, BLOCK_ON_ACCELERATOR = 256, 2048
PART = 2**14  # rows of the output matrix whose gradient is added up at once
SLICE = 2**18  # logits that are in fp32 together on a processor: they stay in its cache


def softmax_minus_one_hot(logits: torch.Tensor, labels: torch.LongTensor, softcap: float | None) -> torch.Tensor:
    """Overwrite logits (rows, vocab) by the gradient of their cross entropies, and return the sum of these, in fp32."""
    labels = labels[:, None]
    ignored = labels == IGNORE_INDEX
    labels = labels.masked_fill(ignored, 0)
    scores = logits.float()
    if softcap is not None:
        scores = (scores / softcap).tanh_()
        slope = 1 - scores.square()
        scores *= softcap
    scores -= scores.amax(dim=-1, keepdim=True)
    right = scores.gather(1, labels)
    total = scores.exp_().sum(dim=-1, keepdim=True)
    loss = (total.log() - right).masked_fill(ignored, 0).sum()
    scores /= total.masked_fill(ignored, torch.inf)  # a row without a label has a gradient of zeros
    scores.scatter_add_(1, labels, ignored.float() - 1)
    if softcap is not None:
        scores *= slope
    logits.copy_(scores)
    return loss


class LinearCrossEntropy(torch.autograd.Function):
    """The sum of the cross entropies of `hidden_states @ weight.T`, with the gradients computed on the way forward."""

    @staticmethod
    def forward(
        ctx,
        hidden_states: torch.Tensor,  # (tokens, hidden)
        weight: torch.Tensor,  # (vocab, hidden)
        labels: torch.LongTensor,  # (tokens,)
        softcap: float | None,
        needs_gradient: bool,
        kernel: Callable[..., torch.Tensor],  # softmax_minus_one_hot, or its compiled self
    ) -> torch.Tensor:
        on_processor = hidden_states.device.type == "cpu"
        fused = kernel is not softmax_minus_one_hot or torch.compiler.is_compiling()
        rows = BLOCK_ON_PROCESSOR if on_processor else BLOCK_ON_ACCELERATOR
        slice_rows = max(1, SLICE // len(weight)) if on_processor and not fused else rows
        lowered = weight.to(hidden_states.dtype)
        loss = hidden_states.new_zeros((), dtype=torch.float)
        grad_hidden, grad_weight = [], torch.zeros_like(weight, dtype=torch.float) if needs_gradient else None
        for hidden, targets in zip(hidden_states.split(rows), labels.split(rows), strict=True):
            block = hidden @ lowered.T  # (rows, vocab)
            for logits, label in zip(block.split(slice_rows), targets.split(slice_rows), strict=True):
                loss += kernel(logits, label, softcap)
            if needs_gradient:
                grad_hidden.append(block @ lowered)
                for part, columns in zip(grad_weight.split(PART), block.T.split(PART), strict=True):
                    part += columns @ hidden
        if needs_gradient:
            ctx.save_for_backward(torch.cat(grad_hidden), grad_weight.to(weight.dtype))
        return loss

    @staticmethod
    def backward(ctx, grad_output: torch.Tensor):
        # In place: the gradient of a large output matrix once, not twice. A second backward pass is an error of torch.
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden.mul_(grad_output), grad_weight.mul_(grad_output), None, None, None, None


class CausalLMLoss(nn.Module):
    """transformers' `ForCausalLMLoss`, from hidden states.

    Args:
        softcap: `final_logit_softcapping` of the configuration.
    """

    def __init__(self, softcap: float | None = None):
        super().__init__()
        self.softcap, self.kernel = softcap, softmax_minus_one_hot

    def compile(self, **options) -> None:
        """Compile what lies between the matrix products, which is the same for every block of rows."""
        self.kernel = torch.compile(softmax_minus_one_hot, **options)

    def forward(
        self,
        hidden_states: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.LongTensor,
        num_items_in_batch: int | torch.Tensor | None = None,
        shift_labels: torch.LongTensor | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """
        Args:
            hidden_states: (batch, seq, hidden), after the final norm.
            weight: (vocab, hidden), the output matrix.
            labels: (batch, seq), not shifted; -100 is not scored.
            num_items_in_batch: what the sum is divided by; default: the number of scored tokens, for their mean.
            shift_labels: (batch, seq), the labels already shifted, in place of `labels`.

        Returns:
            The loss in nats a token, a scalar in fp32. It can be differentiated once.
        """
        if shift_labels is None:
            shift_labels = nn.functional.pad(labels, (0, 1), value=IGNORE_INDEX)[:, 1:]
        targets = shift_labels.flatten().to(hidden_states.device)
        device = hidden_states.device.type
        if torch.is_autocast_enabled(device):
            hidden_states = hidden_states.to(torch.get_autocast_dtype(device))
        hidden_states = hidden_states.flatten(0, 1)
        total = LinearCrossEntropy.apply(
            hidden_states, weight, targets, self.softcap, torch.is_grad_enabled(), self.kernel
        )
        return total / ((targets != IGNORE_INDEX).sum() if num_items_in_batch is None else num_items_in_batch)
