"""Cross entropy computed directly from hidden states: the logits of all tokens are never in memory together.

With a vocabulary of 128k, logits are by far the largest tensor of a training step, and the usual loss holds several
copies of them. Here a block of tokens at a time becomes logits, loss and gradient, and is then discarded. This works
because the gradient of cross entropy, softmax minus one-hot, is known as soon as the loss is. The idea is that of Cut
Your Losses (https://arxiv.org/abs/2411.09009) and Liger Kernel (https://arxiv.org/abs/2410.10989), in plain PyTorch.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.module import _has_any_global_hook

from .originals_scratch import is_at_home

IGNORE_INDEX = -100  # the label of a token that is not scored
# Tokens whose logits are in memory together, in the dtype of the matrix product. A GPU needs large products.
BLOCK_ON_CPU, BLOCK_ON_GPU = 256, 2048
PART = 2**14  # rows of the output matrix whose gradient is accumulated at once
SLICE = 2**18  # logits that are in fp32 together on a CPU: few enough to stay in its cache
# What `lm_head(x)` runs; None if a library changed it before.
_LINEAR = (nn.Linear.forward, functional.linear) if is_at_home(nn.Linear, "forward") else None


def is_plain_linear(module: nn.Module) -> bool:
    """Whether a module computes `x @ weight.T` and nothing else: no bias, adapter, hook, quantization or changed code.

    The loss below reads the weight only; anything more in such a module would be ignored, and would get no gradient.
    """
    hooks = module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks
    return (
        type(module) is nn.Linear
        and module.bias is None
        and type(module.weight) in (nn.Parameter, torch.Tensor)
        and (nn.Linear.forward, functional.linear) == _LINEAR
        and "forward" not in module.__dict__
        and not any(hooks)
        and not _has_any_global_hook()
    )


def softmax_minus_one_hot(logits: torch.Tensor, labels: torch.LongTensor, softcap: float | None) -> torch.Tensor:
    """Overwrite logits by the gradient of their summed cross entropy; return this sum, in fp32.

    Args:
        logits: (tokens, vocab), before the soft cap.
        labels: (tokens,); -100 is not scored and gets a gradient of zeros.
        softcap: `final_logit_softcapping` of the configuration.
    """
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
    scores /= total.masked_fill(ignored, torch.inf)  # gradient 0 for tokens without a label
    scores.scatter_add_(1, labels, ignored.float() - 1)
    if softcap is not None:
        scores *= slope
    logits.copy_(scores)
    return loss


class LinearCrossEntropy(torch.autograd.Function):
    """The summed cross entropy of `hidden_states @ weight.T`; its forward pass computes the gradients too."""

    @staticmethod
    def forward(
        ctx,
        hidden_states: torch.Tensor,  # (tokens, hidden)
        weight: torch.Tensor,  # (vocab, hidden)
        labels: torch.LongTensor,  # (tokens,)
        softcap: float | None,
        needs_gradient: bool,
        kernel: Callable[..., torch.Tensor],  # softmax_minus_one_hot, possibly compiled
    ) -> torch.Tensor:
        on_cpu = hidden_states.device.type == "cpu"
        fused = kernel is not softmax_minus_one_hot or torch.compiler.is_compiling()
        block_size = BLOCK_ON_CPU if on_cpu else BLOCK_ON_GPU
        slice_size = max(1, SLICE // len(weight)) if on_cpu and not fused else block_size
        lowered = weight.to(hidden_states.dtype)
        loss = hidden_states.new_zeros((), dtype=torch.float)
        grad_hidden, grad_weight = [], torch.zeros_like(weight, dtype=torch.float) if needs_gradient else None
        for hidden, targets in zip(hidden_states.split(block_size), labels.split(block_size), strict=True):
            block = hidden @ lowered.T  # (tokens, vocab)
            for logits, label in zip(block.split(slice_size), targets.split(slice_size), strict=True):
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
        # In place, so that the gradient of a large output matrix exists once. torch rejects a second backward pass.
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden.mul_(grad_output), grad_weight.mul_(grad_output), None, None, None, None


class CausalLMLoss(nn.Module):
    """The loss of transformers' `ForCausalLMLoss`, computed from hidden states instead of logits."""

    def __init__(self):
        super().__init__()
        self.kernel = softmax_minus_one_hot

    def compile(self, **options) -> None:
        """Compile the operations between the matrix products, which are the same for every block of tokens."""
        self.kernel = torch.compile(softmax_minus_one_hot, **options)

    def forward(
        self,
        hidden_states: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.LongTensor | None,
        num_items_in_batch: int | torch.Tensor | None = None,
        shift_labels: torch.LongTensor | None = None,
        softcap: float | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """
        Args:
            hidden_states: (batch, seq, hidden), after the final norm.
            weight: (vocab, hidden), the output matrix.
            labels: (batch, seq), not shifted; -100 is not scored.
            num_items_in_batch: the number that the summed loss is divided by. Default: the number of scored tokens.
            shift_labels: (batch, seq), labels that are already shifted, in place of `labels`.
            softcap: `final_logit_softcapping` of the configuration.

        Returns:
            The loss in nats per token, a scalar in fp32. It can be differentiated once.
        """
        if shift_labels is None:
            shift_labels = nn.functional.pad(labels, (0, 1), value=IGNORE_INDEX)[:, 1:]
        targets = shift_labels.flatten().to(hidden_states.device)
        device = hidden_states.device.type
        if torch.is_autocast_enabled(device):
            hidden_states = hidden_states.to(torch.get_autocast_dtype(device))
        hidden_states = hidden_states.flatten(0, 1)
        total = LinearCrossEntropy.apply(hidden_states, weight, targets, softcap, torch.is_grad_enabled(), self.kernel)
        return total / ((targets != IGNORE_INDEX).sum() if num_items_in_batch is None else num_items_in_batch)
