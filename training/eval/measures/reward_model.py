"""Scores by a reward model from `scratch reward`: one number for a whole conversation."""

import math

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

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


class RewardModel:
    """An open reward model.

    Args:
        folder: output of `scratch reward`.
        key: of the recipe that names it.
    """

    def __init__(self, folder: str, key: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        self.folder, self.key, self.model, self.tokenizer = folder, key, model, tokenizer
        # The model reads the score at the last token that is not padding.
        self.padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        model.config.get_text_config().pad_token_id = self.padding

    @classmethod
    def open(cls, folder: str, key: str = "reward_model") -> "RewardModel":
        """Load a reward model that `check_reward_model` accepts."""
        with quiet_loading():
            model = AutoModelForSequenceClassification.from_pretrained(folder).to(pick_device()).eval()
        follow_load_in(model)
        return cls(folder, key, model, open_model_tokenizer(folder, key))

    def encode(self, prompt: Answer, completion: Answer) -> list[int] | None:
        """Token ids of prompt and completion together, with what the template puts after the last turn; None if they
        exceed the context."""
        encoded = encode_answers(self.tokenizer, prompt, completion)
        ids = encoded.prompt + encoded.answers[0]
        return ids if len(ids) <= (context_length(self.model.config) or math.inf) else None

    @torch.inference_mode()
    def score(self, conversations: list[list[int]]) -> list[float]:
        """The scores of encoded conversations, in one batch.

        Raises:
            UserError: a score that is NaN or infinite.
        """
        ids, mask = (tensor.to(self.model.device) for tensor in pad(conversations, self.padding))
        scores = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0].tolist()  # (batch,)
        for score in scores:
            if not math.isfinite(score):
                raise UserError(f"'{self.key}': {self.folder} gave the score {score}; train it again")
        return scores


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
    model = RewardModel.open(folder, key)
    encoded = [model.encode(*pair) for pair in pairs]
    fitting = [index for index, ids in enumerate(encoded) if ids is not None]
    scores: list[float | None] = [None] * len(pairs)
    with progress_bar(total=len(fitting), desc="reward model", unit="answer", leave=False) as bar:
        for batch in by_length([len(encoded[index]) for index in fitting], batch_size):
            indices = [fitting[place] for place in batch]
            for index, score in zip(indices, model.score([encoded[index] for index in indices]), strict=True):
                scores[index] = score
            bar.update(len(batch))
    return scores
