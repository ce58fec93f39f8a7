"""Scores by a reward model from `scratch reward`: one number for a whole conversation."""

import math

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from training.common.device import pick_device
from training.common.errors import UserError
from training.common.progress import progress_bar
from training.eval.measures.batching import by_length, pad
from training.eval.measures.prompts import check_rendering
from training.machine.threads import follow_load_in
from training.model_io.context_length import context_length
from training.model_io.conversations import encode_answers
from training.model_io.model_folder import quiet_loading
from training.model_io.model_kinds import REWARD_MODEL, check_model_kind
from training.model_io.tokenizers import open_model_tokenizer
from training.model_io.weights import check_weights
from training.tuning.reward_functions import Answer


def check_reward_model(folder: str, prompts: list[Answer], key: str) -> None:
    """Reject, before any work, a folder that cannot score answers to such prompts.

    Args:
        folder: output of `scratch reward`.
        key: of the recipe that names it.

    Raises:
        UserError: missing, of another stage or class, without weights or a chat template.
    """
    check_model_kind(folder, REWARD_MODEL, "reward", key=key)
    tokenizer = open_model_tokenizer(folder, key)
    check_weights(folder, key, model_class=AutoModelForSequenceClassification)
    check_rendering(tokenizer, [[prompt] for prompt in prompts], folder, key)


@torch.inference_mode()
def score_conversations(
    folder: str, pairs: list[tuple[Answer, Answer]], batch_size: int, key: str = "reward_model"
) -> list[float | None]:
    """The reward model's score of each conversation, rendered by its own chat template.

    An answer that did not end is scored as if it had.

    Args:
        pairs: prompt and completion each.
        batch_size: conversations per forward pass.
        key: of the recipe that names the folder.

    Returns:
        A number each; None for a conversation that exceeds the reward model's context.

    Raises:
        UserError: a score that is NaN or infinite.
    """
    with quiet_loading():
        model = AutoModelForSequenceClassification.from_pretrained(folder).to(pick_device()).eval()
    follow_load_in(model)
    tokenizer = open_model_tokenizer(folder, key)
    # The model reads the score at the last token that is not padding.
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    model.config.get_text_config().pad_token_id = padding
    longest = context_length(model.config) or math.inf
    encoded = [_encode_whole(tokenizer, *pair) for pair in pairs]
    fitting = [index for index, ids in enumerate(encoded) if len(ids) <= longest]
    scores: list[float | None] = [None] * len(pairs)
    with progress_bar(total=len(fitting), desc="reward model", unit="answer", leave=False) as bar:
        for batch in by_length([len(encoded[index]) for index in fitting], batch_size):
            indices = [fitting[place] for place in batch]
            ids, mask = (tensor.to(model.device) for tensor in pad([encoded[index] for index in indices], padding))
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits  # (batch, 1)
            for index, score in zip(indices, logits[:, 0].tolist()):
                if not math.isfinite(score):
                    raise UserError(f"'{key}': {folder} gave the score {score}; train it again")
                scores[index] = score
            bar.update(len(batch))
    return scores


def _encode_whole(tokenizer: PreTrainedTokenizerBase, prompt: Answer, completion: Answer) -> list[int]:
    """Token ids of prompt and completion together, including what the template puts after the last turn."""
    encoded = encode_answers(tokenizer, prompt, completion)
    return encoded.prompt + encoded.answers[0]
