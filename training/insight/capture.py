"""Captures of a model: the attention and measures of all heads, and losses, written to a record step by step."""

import math
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modeling_scratch.loss_scratch import IGNORE_INDEX
from training.data.loader import Batch, TokenLoader
from training.insight.attention import attention_sizes
from training.insight.config import InsightConfig
from training.insight.copying import copying
from training.insight.heads import read_head
from training.insight.measures import in_context_learning
from training.insight.observation import Observation, observe
from training.insight.record import HeadScores, Layout, RecordWriter, Snapshot, StepScores
from training.insight.sequences import LONGEST, choose_sequences
from training.model_io.context_length import DEFAULT_CONTEXT, context_length


class Capture:
    """Captures one model at many steps, or several of the same sizes, always on the same sequences.

        capture = Capture(model, tokenizer, config, loader, seed=0)
        capture.begin(folder)
        capture.write(model, step=0)

    A capture draws no random numbers and leaves the model as it was.

    Args:
        loader: of the validation split; None without one, and then nothing is measured on held-out text.
        seed: of the random sequences.
        tokens_per_step: training tokens of a step; 0 if unknown.

    Raises:
        UserError: no such head, a text or probe longer than the context, or attention that cannot be recorded.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: InsightConfig,
        loader: TokenLoader | None,
        seed: int,
        tokens_per_step: int = 0,
    ):
        self.tokens_per_step = tokens_per_step
        context = context_length(model.config) or DEFAULT_CONTEXT
        if loader:
            context = min(context, loader.packings[0].sequence_length)
        self.sequences = choose_sequences(config, tokenizer, loader, context, seed)
        self.sizes = attention_sizes(model)
        for name in config.heads:
            read_head(name, self.sizes.layers, self.sizes.heads, "insight.heads")
        self.layout = Layout(
            sequence_length=min(context, LONGEST),
            bytes_per_token=loader.bytes_per_token if loader else None,
            vectors=config.vectors(self.sizes.layers),
            probes=self.sequences.probes,
            **vars(self.sizes),
        )

    def begin(self, folder: Path, step: int = 0) -> RecordWriter:
        """Open the record in a folder; see `RecordWriter` for what it keeps."""
        self.writer = RecordWriter(folder, self.layout, step)
        return self.writer

    def write(self, model: PreTrainedModel, step: int) -> None:
        """Capture the model and add a step to the record."""
        self.writer.write(*self.measure(model, step))

    def measure(self, model: PreTrainedModel, step: int) -> tuple[StepScores, list[HeadScores], Snapshot]:
        """The figures and maps of the model as it is, which has been trained for `step` steps."""
        sequences, tokens = self.sequences, step * self.tokens_per_step
        repeated = self._observe(model, with_labels(sequences.repeated.input_ids), "repeated")
        kinds, drawn = {"repeated": repeated}, [*repeated.drawn]
        if sequences.held_out:
            kinds["held_out"] = self._observe(model, sequences.held_out, "held_out")
            drawn += kinds["held_out"].drawn
        for ids in sequences.texts:
            drawn += observe(model, with_labels(ids[None]), [len(ids)], self.layout.vectors).drawn
        weights = copying(model, repeated.modules, self.sizes).tolist()
        heads = [
            HeadScores(step, tokens, layer, head, kind, *seen.measures[:, layer, head].tolist(), weights[layer][head])
            for layer in range(self.layout.layers)
            for head in range(self.layout.heads)
            for kind, seen in kinds.items()
        ]
        scores = self._scores(repeated, kinds.get("held_out"), step, tokens)
        return scores, heads, Snapshot(step, *map(list, zip(*drawn, strict=True)))

    def _observe(self, model: PreTrainedModel, batch: Batch, kind: str) -> Observation:
        lengths = [len(probe.token_ids) for probe in self.layout.probes if probe.kind == kind]
        return observe(model, batch, lengths, self.layout.vectors)

    def _scores(self, repeated: Observation, held_out: Observation | None, step: int, tokens: int) -> StepScores:
        predictable = self.sequences.repeated.predictable
        figures = {"loss": math.nan, "in_context_learning": math.nan, "loss_by_position": []}
        if held_out:
            by_position = mean_of_scored(held_out.losses, axis=0)
            figures = {
                "loss": float(mean_of_scored(held_out.losses)),
                "in_context_learning": in_context_learning(by_position),
                "loss_by_position": by_position.tolist(),
            }
        return StepScores(
            step=step,
            tokens=tokens,
            copying=float(repeated.correct[:, predictable].mean()),
            repeat_loss=float(repeated.losses[:, predictable].mean()),
            **figures,
        )


def with_labels(input_ids: torch.LongTensor) -> Batch:
    """A batch of sequences, (batch, seq), whose labels are their own next tokens; the last has none."""
    labels = torch.nn.functional.pad(input_ids[:, 1:], (0, 1), value=IGNORE_INDEX)
    return Batch(input_ids, labels, None)


def mean_of_scored(losses: np.ndarray, axis: int | None = None) -> np.ndarray:
    """The mean of the losses that are not NaN; NaN where there are none."""
    with np.errstate(invalid="ignore"):
        return np.nansum(losses, axis) / np.isfinite(losses).sum(axis)
