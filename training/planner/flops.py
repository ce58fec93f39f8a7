"""Floating-point operations of training and generation per token, by component, in both conventions of MFU."""

from dataclasses import dataclass

from training.common.operations import attention_operations, matrix_operations, positions_seen
from training.planner.architecture import Architecture


@dataclass(frozen=True)
class Flops:
    """Operations per token of a training step, forward and backward.

    Model FLOPs utilisation has two conventions. PaLM (https://arxiv.org/abs/2204.02311, appendix B) counts the whole
    square of attention, as most published figures do. The causal half counts only what the mask leaves: the `mfu` of
    our metrics.jsonl.

    Attributes:
        attention_matrices, mlp, output_matrix: of the products with weights.
        attention_square, attention_causal: of scores and weighted values, by both conventions.
    """

    attention_matrices: int
    mlp: int
    output_matrix: int
    attention_square: float
    attention_causal: float

    @property
    def matrices(self) -> int:
        """Operations of all products with weights."""
        return self.attention_matrices + self.mlp + self.output_matrix

    @property
    def palm(self) -> float:
        """The full-square convention."""
        return self.matrices + self.attention_square

    @property
    def causal(self) -> float:
        """The causal convention; `training.pretraining.throughput.operations_per_token` of the same model."""
        return self.matrices + self.attention_causal


def flops_per_token(architecture: Architecture, sequence_length: int) -> Flops:
    """Operations of training per token. Recomputed activations and the optimizer do not count, as in any MFU."""
    layers, width = architecture.num_hidden_layers, architecture.query_width
    seen = [positions_seen(sequence_length, window) for window in architecture.windows]
    square = [min(window or sequence_length, sequence_length) for window in architecture.windows]
    return Flops(
        matrix_operations(layers * architecture.attention_matrices),
        matrix_operations(layers * architecture.mlp_matrices),
        matrix_operations(architecture.head_matrix),
        attention_operations(width, square),
        attention_operations(width, seen),
    )
