"""What a model reads of a question, and what it is scored on of an answer.

Messages are rendered by the model's own chat template. Text stays as it is, behind what the tokenizer puts before a
text, and ends with the end of text: as in TRL's trainers.
"""

from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from training.common.errors import UserError

Words = str | list[dict[str, Any]]  # text that goes on from a text, or messages

_QUESTION, _ANSWER = [{"role": "user", "content": "Where?"}], [{"role": "assistant", "content": "Here."}]


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Words) -> list[int]:
    """Token ids up to where the answer begins."""
    if isinstance(prompt, str):
        return _encode(tokenizer, prompt, add_special_tokens=True)
    return _encode(tokenizer, _opening(tokenizer, prompt))


def encode_whole(tokenizer: PreTrainedTokenizerBase, prompt: Words, completion: Words) -> list[int]:
    """Token ids of prompt and completion in one, whatever the template puts behind the last turn included."""
    if isinstance(prompt, str):
        return _encode(tokenizer, prompt + completion + tokenizer.eos_token, add_special_tokens=True)
    return _encode(tokenizer, _whole(tokenizer, prompt, completion))


def encode_completion(
    tokenizer: PreTrainedTokenizerBase, prompt: Words, completion: Words
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt (up to the assistant's opening) and of the completion, the token that ends it included.

    The two are encoded apart, so that the completion continues exactly the prompt the model is given in a chat.
    """
    if isinstance(prompt, str):
        answer = completion + tokenizer.eos_token
    else:
        answer = _whole(tokenizer, prompt, completion)[len(_opening(tokenizer, prompt)) :]
    ids = _encode(tokenizer, answer)
    return encode_prompt(tokenizer, prompt), ids[: _last_special(tokenizer, ids) + 1]


def end_token(tokenizer: PreTrainedTokenizerBase, prompt: Words) -> int:
    """The token by which the answer to such a prompt is to end, such as `<|im_end|>`."""
    if isinstance(prompt, str):
        return tokenizer.eos_token_id
    return encode_completion(tokenizer, _QUESTION, _ANSWER)[1][-1]


def check_rendering(tokenizer: PreTrainedTokenizerBase, prompt: Words, model: str, key: str) -> None:
    """Refuse, before any work, a model that cannot be given such a prompt.

    Args:
        model, key: its folder, and the key of the recipe that names it.

    Raises:
        UserError: it has no chat template, one that does not take the messages, or one in which an answer does not
            follow its opening or has no end; for text, no token that ends a text.
    """
    if isinstance(prompt, str):
        if tokenizer.eos_token is None:
            raise UserError(f"'{key}': {model} has no token that ends a text (eos_token)")
        return
    if not tokenizer.chat_template:
        raise UserError(f"'{key}': {model} has no chat template, so that it cannot be asked in messages")
    try:
        opening, whole = _opening(tokenizer, _QUESTION), _whole(tokenizer, _QUESTION, _ANSWER)
        _opening(tokenizer, prompt)
    except TemplateError as error:
        raise UserError(f"'{key}': the chat template of {model} does not take the messages ({error})") from None
    ids = _encode(tokenizer, whole[len(opening) :])
    if not whole.startswith(opening) or _last_special(tokenizer, ids) is None:
        raise UserError(
            f"'{key}': by the chat template of {model} an answer does not follow its opening, or does not end with a "
            "special token, so that it cannot be told from the rest"
        )


def _opening(tokenizer: PreTrainedTokenizerBase, prompt: list[dict[str, Any]]) -> str:
    return tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)


def _whole(tokenizer: PreTrainedTokenizerBase, prompt: list[dict[str, Any]], completion: list[dict[str, Any]]) -> str:
    return tokenizer.apply_chat_template(prompt + completion, tokenize=False)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, add_special_tokens: bool = False) -> list[int]:
    """Without transformers' warning of a text longer than the model's context: such are left out, and counted."""
    return tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"]


def _last_special(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> int | None:
    """The place of the last special token, None if there is none."""
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    return max((place for place, token in enumerate(ids) if token in special), default=None)
