"""A reward model as a judge: one number for a whole conversation, as it was trained to give it."""

import math
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from training.common.device import pick_device
from training.common.errors import UserError
from training.common.progress import progress_bar
from training.common.stage import check_stage
from training.eval.measures.prompts import Words, check_rendering, encode_whole
from training.model_io.model_folder import quiet_loading
from training.model_io.tokenizers import open_model_tokenizer
from training.model_io.weights import check_weights


def check_judge(folder: str, prompt: Words, key: str) -> None:
    """Refuse, before any work, what cannot judge answers to such a prompt.

    Args:
        folder: as `scratch reward` leaves it.
        key: of the recipe that names it.

    Raises:
        UserError: missing, of another stage or class, without weights or a chat template.
    """
    check_stage(folder, "reward", key=key)
    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"'{key}': {folder} holds no model (no config.json); it takes a folder of `scratch reward`")
    tokenizer = open_model_tokenizer(folder, key)
    config = AutoConfig.from_pretrained(folder)
    architecture = (config.architectures or ["model of unknown class"])[0]
    if not architecture.endswith("ForSequenceClassification") or config.num_labels != 1:
        raise UserError(
            f"'{key}': {folder} holds a {architecture} with {config.num_labels} labels; a judge gives a conversation "
            "one number, as the ...ForSequenceClassification of `scratch reward` does"
        )
    check_weights(folder, key, model_class=AutoModelForSequenceClassification)
    check_rendering(tokenizer, prompt, folder, key)


@torch.inference_mode()
def score_conversations(
    folder: str, pairs: list[tuple[Words, Words]], batch_size: int, key: str = "judge"
) -> list[float | None]:
    """The judge's score of each conversation, rendered by its own chat template, an answer that did not end included.

    Args:
        pairs: prompt and completion each.
        key: of the recipe that names the folder.

    Returns:
        A number each, None for a conversation that is longer than the judge's positions.

    Raises:
        UserError: a score that is no finite number.
    """
    with quiet_loading():
        model = AutoModelForSequenceClassification.from_pretrained(folder).to(pick_device()).eval()
    tokenizer = open_model_tokenizer(folder, key)
    # The score is read off the last token that is no padding.
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    model.config.get_text_config().pad_token_id = padding
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None) or float("inf")
    encoded = [encode_whole(tokenizer, *pair) for pair in pairs]
    fitting = [index for index, ids in enumerate(encoded) if len(ids) <= longest]
    order = sorted(fitting, key=lambda index: len(encoded[index]), reverse=True)
    scores: list[float | None] = [None] * len(pairs)
    with progress_bar(total=len(order), desc="judge", unit="answer", leave=False) as bar:
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            width = len(encoded[chosen[0]])
            rows = [encoded[index] + [padding] * (width - len(encoded[index])) for index in chosen]
            mask = [[1] * len(encoded[index]) + [0] * (width - len(encoded[index])) for index in chosen]
            inputs = {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}
            logits = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}, use_cache=False).logits
            for index, score in zip(chosen, logits[:, 0].tolist()):  # logits: (batch, 1)
                if not math.isfinite(score):
                    raise UserError(f"'{key}': {folder} gave {score} as a score, which is no finite number")
                scores[index] = score
            bar.update(len(chosen))
    return scores
