"""Open a language model and its tokenizer to generate with, every file checked."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from training.common.device import pick_device
from training.common.errors import UserError, one_line
from training.common.hub_names import is_hub_name
from training.machine.threads import follow_load_in
from training.model_io.model_folder import no_progress_bars
from training.model_io.model_kinds import LANGUAGE_MODEL, check_model_kind
from training.model_io.tokenizers import open_model_tokenizer
from training.model_io.weights import check_weights
from training.stages.provenance import LANGUAGE_MODELS


def open_language_model(
    name: str, device: str | None = None, dtype: str = "auto"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer. Remote code is never executed: only our classes and those of transformers load.

    Args:
        name: a folder, or a name on the Hub.
        device: such as `cuda:0`; None for the fastest one here.
        dtype: of the weights; `auto` as they are stored.

    Raises:
        UserError: no model there, one of another kind, one that does not load, or no such device.
    """
    if not is_hub_name(name):
        if not Path(name).is_dir():
            raise UserError(f"{name}: no model found; give a model folder (with config.json) or a Hub name")
        check_model_kind(name, LANGUAGE_MODEL, *LANGUAGE_MODELS, key="model")
    tokenizer = open_model_tokenizer(name, "model")
    check_weights(name, "model")
    with no_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    try:
        model = model.to(torch.device(device) if device else pick_device()).eval()
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"'device': {device} cannot be used ({one_line(error)[:200]})") from None
    follow_load_in(model)
    return model, tokenizer
