"""Cross entropy straight from hidden states: the logits of all tokens are never in memory together.

A vocabulary of 128k makes logits the largest tensor of a training step by far, and the usual way holds several copies
of it. Here a few rows at a time become logits, loss and gradient, and are forgotten again: the gradient of cross
entropy, softmax minus one-hot, is known as soon as the loss is. The idea is that of Cut Your Losses
(https://arxiv.org/abs/2411.09009) and Liger Kernel (https://arxiv.org/abs/2410.10989), in plain PyTorch.
"""

import torch
from torch import nn

IGNORED = -100
# Rows at a time. On a processor a block of logits should stay in its cache; an accelerator wants larger products.
ROWS_ON_PROCESSOR, ROWS_ON_ACCELERATOR = 256, 1024


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
    ) -> torch.Tensor:
        on_processor = hidden_states.device.type == "cpu"
        rows = ROWS_ON_PROCESSOR if on_processor else ROWS_ON_ACCELERATOR
        lowered = weight.to(hidden_states.dtype)
        loss = hidden_states.new_zeros((), dtype=torch.float)
        grad_hidden, grad_weight = [], torch.zeros_like(weight, dtype=torch.float) if needs_gradient else None
        for hidden, label in zip(hidden_states.split(rows), labels.split(rows), strict=True):
            ignored = (label == IGNORED)[:, None]
            label = label[:, None].masked_fill(ignored, 0)
            logits = (hidden @ lowered.T).float()  # (rows, vocab)
            if softcap is not None:
                logits = (logits / softcap).tanh_()
                slope = 1 - logits.square() if needs_gradient else None
                logits *= softcap
            log_probabilities = logits.log_softmax(dim=-1)
            loss -= log_probabilities.gather(1, label).masked_fill(ignored, 0).sum()
            if needs_gradient:
                gradient = log_probabilities.exp_()
                gradient.scatter_add_(1, label, gradient.new_full(label.shape, -1.0))
                if softcap is not None:
                    gradient *= slope
                gradient = gradient.masked_fill_(ignored, 0).to(hidden.dtype)
                grad_hidden.append(gradient @ lowered)
                grad_weight += gradient.T @ hidden
        if needs_gradient:
            ctx.save_for_backward(torch.cat(grad_hidden), grad_weight.to(weight.dtype))
        return loss

    @staticmethod
    def backward(ctx, grad_output: torch.Tensor):
        # In place: the gradient of a large output matrix once, not twice. A second backward pass is an error of torch.
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden.mul_(grad_output), grad_weight.mul_(grad_output), None, None, None


class CausalLMLoss(nn.Module):
    """transformers' `ForCausalLMLoss`, from hidden states. A module, so that it can be compiled by itself."""

    def __init__(self, softcap: float | None = None):
        super().__init__()
        self.softcap = softcap

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
            shift_labels = nn.functional.pad(labels, (0, 1), value=IGNORED)[:, 1:]
        targets = shift_labels.flatten().to(hidden_states.device)
        device = hidden_states.device.type
        if torch.is_autocast_enabled(device):
            hidden_states = hidden_states.to(torch.get_autocast_dtype(device))
        hidden_states = hidden_states.flatten(0, 1)
        total = LinearCrossEntropy.apply(hidden_states, weight, targets, self.softcap, torch.is_grad_enabled())
        return total / ((targets != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)
