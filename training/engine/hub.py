"""A model as a plain Hugging Face directory: weights, configuration, generation settings, tokenizer and code."""

import shutil
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from modeling_scratch import ScratchConfig

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

# The classes that a directory offers to each Auto class, whichever of them was saved.
AUTO_MAP = {
    "AutoConfig": "configuration_scratch.ScratchConfig",
    "AutoModel": "modeling_scratch.ScratchModel",
    "AutoModelForCausalLM": "modeling_scratch.ScratchForCausalLM",
    "AutoModelForSequenceClassification": "modeling_scratch.ScratchForSequenceClassification",
}


def special_token_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int | None]:
    """The ids that go into a model's configuration. The end-of-text token also opens an unprompted text."""
    return {
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def generation_config(tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> GenerationConfig:
    """Sampling as people expect it; generation ends at the end of the text or of the assistant's turn.

    Args:
        vocab_size: rows of the model's embedding. Those beyond the tokenizer, which stand for nothing, are never drawn.
    """
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    ids = special_token_ids(tokenizer)
    if end_of_turn is not None and end_of_turn != tokenizer.unk_token_id:
        ids["eos_token_id"] = [tokenizer.eos_token_id, end_of_turn]
    phantoms = list(range(len(tokenizer), vocab_size)) or None
    return GenerationConfig(
        **ids, do_sample=True, temperature=0.8, top_k=50, max_new_tokens=256, suppress_tokens=phantoms
    )


def save_model(
    model: PreTrainedModel, tokenizer_dir: str | Path, folder: str | Path, state_dict: dict[str, Any] | None = None
) -> None:
    """Write `folder` so that stock transformers opens it with nothing but `trust_remote_code=True`.

    Args:
        model: the unwrapped model.
        tokenizer_dir: where its tokenizer's files are; they are copied byte for byte.
        state_dict: the gathered weights, when the model's own are sharded.
    """
    folder = Path(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_dir)
    if isinstance(model.config, ScratchConfig):
        model.config.auto_map = dict(AUTO_MAP)
    model.config.use_cache = True  # trainers switch it off, and it would be saved so
    model.generation_config = generation_config(tokenizer, model.config.vocab_size)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # it would break into the training's own
    model.save_pretrained(folder, state_dict=state_dict)
    if shown:
        logging.enable_progress_bar()
    for name in TOKENIZER_FILES:
        if (Path(tokenizer_dir) / name).is_file():
            shutil.copyfile(Path(tokenizer_dir) / name, folder / name)
