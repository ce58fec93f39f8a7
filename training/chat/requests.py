"""Requests to `scratch serve` as token ids: encoded as chat and training encode, special tokens in them as text."""

from typing import Any

from jinja2 import TemplateError
from transformers import BatchEncoding, PreTrainedTokenizerBase

from training.model_io.conversations import encode_conversation


def encode_requests(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make a tokenizer encode the conversations and texts of `transformers serve` as this package does.

    A conversation that the chat template rejects, or would render in part, is answered with the status 400.
    """

    def apply_chat_template(
        conversation: list[dict[str, Any]],
        add_generation_prompt: bool = False,
        return_tensors: str | None = None,
        return_dict: bool = True,
        tokenize: bool = True,
        **template: Any,
    ) -> BatchEncoding:
        from fastapi import HTTPException

        try:
            ids = encode_conversation(tokenizer, conversation, add_generation_prompt, **template).ids
        except TemplateError as error:
            raise HTTPException(400, f"the chat template rejects this conversation ({error})") from None
        encoded = {"input_ids": ids, "attention_mask": [1] * len(ids)}
        return BatchEncoding(encoded, tensor_type=return_tensors, prepend_batch_axis=return_tensors is not None)

    tokenizer.apply_chat_template = apply_chat_template
    tokenizer.split_special_tokens = True  # of completions
