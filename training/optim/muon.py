"""Muon for matrices, AdamW for the rest, as one optimizer.

Parameter groups choose their rule by `use_muon`. Muon: https://kellerjordan.github.io/posts/muon, with the polynomials
of Polar Express, https://arxiv.org/abs/2505.16932. AdamW: https://arxiv.org/abs/1711.05101.

`torch.optim.Muon` applies the same update with the same step size (its `adjust_lr_fn="original"`). What differs here:

- Polynomials: one per iteration, from Polar Express, instead of the same one five times.
- Batching: matrices of one shape go through the products together, instead of one at a time.
- Sharded parameters: their matrices are exchanged between processes (see below).
- AdamW is in the same object, so that a training engine has one state to save and one `step()` to wrap.

Parameters may be sharded, as the DTensors of FSDP2. Their state is then sharded alike, and every process updates its
own part. Only the polar factor needs whole matrices, so the processes divide them: each receives the missing parts of
its matrices and sends the results back.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Shard

# Elements of the matrices that one process multiplies together: enough to keep a GPU busy, few enough to bound the
# memory (256 MB for each intermediate result in fp32).
POLAR_BATCH = 2**26

# Odd quintics a x + b x^3 + c x^5 that, applied in turn, drive singular values in (0, 1] to 1: the table for five
# iterations of Polar Express. The first is steep, for small singular values.
POLAR_COEFFICIENTS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def polar_factor(matrices: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The polar factors: U V^T of each matrix's singular value decomposition, so all singular values are near one.

    Args:
        matrices: (batch, rows, columns).
        dtype: dtype of the products; bf16 suffices, because the direction of a step need not be exact.

    Returns:
        (batch, rows, columns), in `dtype`.
    """
    x = matrices.to(dtype)
    if tall := x.size(-2) > x.size(-1):  # work on the smaller Gram matrix
        x = x.mT
    # The Frobenius norm bounds the largest singular value; the margin covers rounding in bf16.
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-7)
    for a, b, c in POLAR_COEFFICIENTS:
        gram = x @ x.mT  # (batch, rows, rows)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # b gram + c gram^2, without passes of their own
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


class MuonAdamW(torch.optim.Optimizer):
    """Muon in groups with `use_muon=True`, which hold matrices only; AdamW in all others.

    A Muon step is `lr * sqrt(max(1, rows / columns))` times an orthogonal matrix. Its size depends on the learning rate
    alone, not on the gradient, so one rate serves every width. Weight decay is decoupled: `weight *= 1 - lr * decay`.

    Args:
        params: parameter groups, each with `use_muon` and, where it differs, `lr`, `weight_decay`, `momentum`, `betas`.
        polar_dtype: dtype of Muon's matrix products.

    Raises:
        ValueError: a Muon group holds something that is not a matrix.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-10,
        polar_dtype: torch.dtype = torch.bfloat16,
    ):
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "betas": betas,
            "eps": eps,
            "use_muon": False,
        }
        super().__init__(params, defaults)
        self.polar_dtype = polar_dtype
        for group in self.param_groups:
            if group["use_muon"] and any(parameter.ndim != 2 for parameter in group["params"]):
                raise ValueError("a Muon group may hold matrices only; give vectors and scalars to AdamW")

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """Update all parameters that have a gradient; return what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            (self._muon if group["use_muon"] else self._adamw)(parameters, group)
        return loss

    def _muon(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        by_shape = defaultdict(list)
        for parameter in parameters:
            by_shape[parameter.shape].append(parameter)
        for (rows, columns), matrices in by_shape.items():
            processes = matrices[0].device_mesh.size() if isinstance(matrices[0], DTensor) else 1
            batch = processes * max(1, POLAR_BATCH // (rows * columns))
            step_size = group["lr"] * max(1, rows / columns) ** 0.5
            # Matrices of one shape in one batched product: fewer and larger kernels.
            for start in range(0, len(matrices), batch):
                batch_of_matrices = matrices[start : start + batch]
                updates = [self._averaged_gradient(matrix, group["momentum"]) for matrix in batch_of_matrices]
                for matrix, update in zip(batch_of_matrices, self._polar_factors(updates), strict=True):
                    local = _local(matrix)
                    local.mul_(1 - group["lr"] * group["weight_decay"])
                    local.add_(update.to(local.dtype), alpha=-step_size)

    def _averaged_gradient(self, matrix: torch.Tensor, momentum: float) -> torch.Tensor:
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        state["momentum"].lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(state["momentum"], momentum)  # Nesterov

    def _polar_factors(self, matrices: list[torch.Tensor]) -> torch.Tensor:
        """The polar factors of (rows, columns) matrices, stacked; for sharded ones, this process's parts."""
        stacked = torch.stack(matrices).to(self.polar_dtype)  # (batch, rows, columns)
        if not isinstance(stacked, DTensor):
            return polar_factor(stacked, self.polar_dtype)
        mesh, parts = stacked.device_mesh, stacked.placements
        whole = [Shard(0)] * mesh.ndim  # each process has some of the matrices, whole
        mine = polar_factor(stacked.redistribute(placements=whole).to_local(), self.polar_dtype)
        factors = DTensor.from_local(mine, mesh, whole, shape=stacked.shape, stride=stacked.stride())
        return factors.redistribute(placements=parts).to_local()

    def _adamw(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["step"] += 1
            step = state["step"].item()
            weight, gradient = _local(parameter), _local(parameter.grad)
            mean, mean_square = _local(state["exp_avg"]), _local(state["exp_avg_sq"])
            mean.lerp_(gradient, 1 - beta1)
            mean_square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            denominator = (mean_square / (1 - beta2**step)).sqrt_().add_(group["eps"])
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.addcdiv_(mean, denominator, value=-group["lr"] / (1 - beta1**step))


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process holds, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
