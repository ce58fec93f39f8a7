"""Prompts and answers as token ids: messages by the model's own chat template, text unchanged.

Text follows what the tokenizer puts before a text, and ends with the end of text, as in TRL's trainers.
"""

from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from training.common.errors import UserError
from training.tuning.reward_functions import Answer

_QUESTION, _ANSWER = [{"role": "user", "content": "Where?"}], [{"role": "assistant", "content": "Here."}]


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Answer) -> list[int]:
    """Token ids of a prompt, up to where the answer begins."""
    if isinstance(prompt, str):
        return _encode(tokenizer, prompt, add_special_tokens=True)
    return _encode(tokenizer, _prompt_text(tokenizer, prompt))


def encode_conversation(tokenizer: PreTrainedTokenizerBase, prompt: Answer, completion: Answer) -> list[int]:
    """Token ids of prompt and completion together, including what the template puts after the last turn."""
    if isinstance(prompt, str):
        return _encode(tokenizer, prompt + completion + tokenizer.eos_token, add_special_tokens=True)
    return _encode(tokenizer, _conversation_text(tokenizer, prompt, completion))


def encode_completion(
    tokenizer: PreTrainedTokenizerBase, prompt: Answer, completion: Answer
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt (up to the assistant's header) and of the completion, including the token that ends it.

    The two are encoded separately, so that the completion continues exactly the prompt that the model gets in a chat.
    """
    if isinstance(prompt, str):
        answer = completion + tokenizer.eos_token
    else:
        answer = _conversation_text(tokenizer, prompt, completion)[len(_prompt_text(tokenizer, prompt)) :]
    ids = _encode(tokenizer, answer)
    return encode_prompt(tokenizer, prompt), ids[: _last_special(tokenizer, ids) + 1]


def end_token(tokenizer: PreTrainedTokenizerBase, prompt: Answer) -> int:
    """The token that ends an answer to such a prompt, such as `<|im_end|>`."""
    if isinstance(prompt, str):
        return tokenizer.eos_token_id
    return encode_completion(tokenizer, _QUESTION, _ANSWER)[1][-1]


def check_rendering(tokenizer: PreTrainedTokenizerBase, prompt: Answer, model: str, key: str) -> None:
    """Reject, before any work, a model whose tokenizer cannot render such a prompt.

    Args:
        model, key: the model's folder, and the key of the recipe that names it.

    Raises:
        UserError: no chat template, one that does not accept the messages, or one in which an answer does not follow
            the prompt or has no end; for text, no token that ends a text.
    """
    if isinstance(prompt, str):
        if tokenizer.eos_token is None:
            raise UserError(f"'{key}': {model} has no end-of-text token (eos_token); set one in its tokenizer")
        return
    if not tokenizer.chat_template:
        raise UserError(f"'{key}': {model} has no chat template; use prompts of plain text, or add a template")
    try:
        before, whole = _prompt_text(tokenizer, _QUESTION), _conversation_text(tokenizer, _QUESTION, _ANSWER)
        _prompt_text(tokenizer, prompt)
    except TemplateError as error:
        raise UserError(f"'{key}': the chat template of {model} does not accept the messages ({error})") from None
    ids = _encode(tokenizer, whole[len(before) :])
    if not whole.startswith(before) or _last_special(tokenizer, ids) is None:
        raise UserError(
            f"'{key}': in the chat template of {model} an answer does not follow the generation prompt, or does not "
            "end with a special token; fix the template"
        )


def _prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: list[dict[str, Any]]) -> str:
    return tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)


def _conversation_text(
    tokenizer: PreTrainedTokenizerBase, prompt: list[dict[str, Any]], completion: list[dict[str, Any]]
) -> str:
    return tokenizer.apply_chat_template(prompt + completion, tokenize=False)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, add_special_tokens: bool = False) -> list[int]:
    """Token ids, without transformers' warning of a text that exceeds the context: callers skip such texts."""
    return tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"]


def _last_special(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> int | None:
    """The position of the last special token; None if there is none."""
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    return max((place for place, token in enumerate(ids) if token in special), default=None)
