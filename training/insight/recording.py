"""Records of attention after training: from the checkpoints that a run kept, or from one model."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from training.common.errors import UserError
from training.data.curriculum import Curriculum
from training.data.loader import TokenLoader
from training.data.mixture import Mixture
from training.insight.attention import check_written_out
from training.insight.capture import Capture, with_labels
from training.insight.config import InsightConfig
from training.insight.heads import Head
from training.insight.observation import observe
from training.insight.record import Record, Snapshot, Vectors, probability
from training.model_io.language_model import open_language_model
from training.stages.checkpoints import CHECKPOINTS, read_checkpoints
from training.stages.provenance import read_provenance

MOST_DIFFERENCE = 0.04  # of attention, between the precision of training and that of a model that is opened


def record_from_checkpoints(run: str | Path, folder: str | Path, config: InsightConfig) -> Record:
    """Record every checkpoint that a pretraining run has kept, finished or not.

    Args:
        run: the output of `scratch pretrain`, or its working folder (`.partial`).
        folder: of the record. What it holds is replaced, usually `RUN/insight`.
        config: which probes and heads; `enabled` and `captures_per_doubling` are not read.

    Raises:
        UserError: no pretraining run, no checkpoint, its shards are gone, or what `Capture` raises.
    """
    recipe = read_provenance(run)
    if recipe.get("stage") != "pretrain":
        raise UserError(f"{run}: not the output of `scratch pretrain`; give one, or record a single model")
    recipe = recipe["recipe"]
    checkpoints = read_checkpoints(Path(run) / CHECKPOINTS)
    if not checkpoints:
        raise UserError(f"{run}: no checkpoint is left; record its model alone, or train with insight.enabled: true")
    loader = validation_loader(recipe)
    tokens_per_step = recipe["global_batch_size"] * recipe["sequence_length"]
    capture = None
    for checkpoint in checkpoints:
        model, tokenizer = open_language_model(str(checkpoint.folder), dtype="float32")
        if capture is None:
            capture = Capture(model, tokenizer, config, loader, recipe["seed"], tokens_per_step)
            capture.begin(Path(folder))
        capture.write(model, checkpoint.step)
    return Record.open(folder)


def record_from_model(
    name: str | Path, folder: str | Path, config: InsightConfig, run: str | Path | None = None, seed: int = 0
) -> Record:
    """Record one moment, as step 0, of any causal language model that transformers opens.

    Without held-out text there are measures of repeated sequences alone; the other figures are NaN.

    Args:
        name: a folder, or a name on the Hub.
        folder: of the record. What it holds is replaced.
        config: which probes and heads.
        run: a pretraining run with the same tokenizer whose validation split is the held-out text.

    Raises:
        UserError: no such model, attention that cannot be recorded, or that would not be exact; or what `Capture`
            raises.
    """
    model, tokenizer = open_language_model(str(name))
    loader = validation_loader(read_provenance(run)["recipe"]) if run else None
    capture = Capture(model, tokenizer, config, loader, seed)
    check_written_out(model, capture.sequences.repeated.input_ids[:1])
    capture.begin(Path(folder))
    capture.write(model, step=0)
    return Record.open(folder)


def last_vectors(record: Record, model: PreTrainedModel, heads: list[Head]) -> Vectors | None:
    """Queries, keys and values of some heads at the last step of a record, from the weights of that step.

    Returns:
        None if the maps of this model are not those of the record, so that it is of another step.
    """
    last = record.snapshot(record.steps[-1].step)
    drawn = []
    for probe, recorded in zip(record.probes, last.attention, strict=True):
        ids = torch.tensor([probe.token_ids])
        drawn += observe(model, with_labels(ids), [len(probe.token_ids)], heads).drawn
        if np.abs(probability(drawn[-1][0]) - probability(recorded)).max() > MOST_DIFFERENCE:
            return None
    return Vectors(heads, Snapshot(last.step, *map(list, zip(*drawn, strict=True))))


def validation_loader(recipe: dict[str, Any]) -> TokenLoader:
    """The validation split of a pretraining recipe. Raises UserError: the shards are missing or damaged."""
    mixture = Mixture(recipe["data"])
    if recipe["curriculum"]:
        mixture = Curriculum(recipe["data"], recipe["curriculum"], recipe["max_steps"], recipe["global_batch_size"])
    packing, length = recipe["packing"], recipe["sequence_length"]
    return TokenLoader.open(mixture, "validation", packing, length, 1, recipe["seed"], recipe["document_mask"])
