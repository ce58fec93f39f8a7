"""Checks of a model before its export to GGUF, and the measure of what a precision loses."""

from pathlib import Path

import torch
from transformers import AutoConfig, GenerationConfig, PreTrainedModel

from training.common.errors import UserError
from training.data.shards import MANIFEST
from training.engines.gguf_agreement import Agreement, held_out_tokens, measure_agreement
from training.engines.gguf_file import check_network
from training.engines.gguf_vocabulary import read_vocabulary
from training.model_io.model_folder import GENERATION_CONFIG, check_generation_config
from training.model_io.model_kinds import LANGUAGE_MODEL, ModelKind
from training.model_io.tokenizers import has_tokenizer, open_model_tokenizer
from training.publishing.lineage import made_from


def check_gguf(model: str, source: ModelKind, precision: str, to: str) -> None:
    """Reject a model that llama.cpp would run differently, or not at all.

    Args:
        model: its folder.
        to: target of the export, for errors.

    Raises:
        UserError: names the option of the model, or what is special in its tokenizer.
    """
    if source is not LANGUAGE_MODEL:
        raise UserError(f"'to': {model} is a {source.name}; only language models can be exported to {to}")
    if not has_tokenizer(model):
        raise UserError(f"'to': {model} has no tokenizer, and a GGUF file holds it; copy tokenizer.json there")
    check_generation_config(model, "model")
    network, tokenizer = AutoConfig.from_pretrained(model), open_model_tokenizer(model, "model")
    settings = GenerationConfig.from_model_config(network)
    if (Path(model) / GENERATION_CONFIG).is_file():
        settings = GenerationConfig.from_pretrained(model)
    try:
        check_network(network, precision)
        read_vocabulary(tokenizer, settings, network.vocab_size, chat=False)
    except ValueError as error:
        raise UserError(f"'to': {model}: {error}") from None


def held_out_corpus(model: str, precision: str, held_out: str | None) -> str:
    """The corpus to measure a precision on: the one that is named, or one that the model was pretrained on.

    Raises:
        UserError: there is none.
    """
    if held_out:
        return held_out
    for record in made_from({"model": model}):
        data = record["recipe"].get("data")
        for folder in [data] if isinstance(data, str) else data or ():
            if record["stage"] == "pretrain" and (Path(folder) / MANIFEST).is_file():
                return folder
    raise UserError(
        f"'held_out': {precision} is measured on held-out text, and the corpus of {model} is not here; name an output "
        "of `scratch prepare` with its tokenizer"
    )


def held_out_text(folder: str, precision: str, held_out: str | None) -> torch.Tensor | None:
    """Tokens of held-out text; None for F32, which needs none, if no corpus is named.

    Args:
        folder: of the model.

    Raises:
        UserError: there is no such text.
    """
    if precision == "f32" and not held_out:
        return None
    return held_out_tokens(held_out_corpus(folder, precision, held_out), folder)


def measure_precision(folder: str, model: PreTrainedModel, precision: str, held_out: str | None) -> Agreement | None:
    """Measure what a precision loses on held-out text; None for F32, which loses nothing.

    Args:
        folder: of the model.

    Raises:
        UserError: there is no such text.
    """
    if precision == "f32":
        return None
    return measure_agreement(model, precision, held_out_text(folder, precision, held_out))
