"""Prompts and answers as token ids: messages by the model's own chat template, text unchanged.

Text follows what the tokenizer puts before a text, and ends with the end of text, as in training.
"""

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from training.common.errors import UserError, one_line
from training.model_io.conversations import encode_answers, encode_prompt
from training.tuning.reward_functions import Answer, content

_QUESTION, _ANSWER = [{"role": "user", "content": "Where?"}], [{"role": "assistant", "content": "Here."}]


def encode_completion(
    tokenizer: PreTrainedTokenizerBase, prompt: Answer, completion: Answer
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt (up to the assistant's header) and of the completion with the token that ends it."""
    encoded = encode_answers(tokenizer, prompt, completion)
    (answer,) = encoded.answers
    return encoded.prompt, answer[: _last_special(tokenizer, answer) + 1]


def end_token(tokenizer: PreTrainedTokenizerBase, prompt: Answer) -> int:
    """The token that ends an answer to such a prompt, such as `<|im_end|>`."""
    if isinstance(prompt, str):
        return tokenizer.eos_token_id
    return encode_completion(tokenizer, _QUESTION, _ANSWER)[1][-1]


def check_rendering(
    tokenizer: PreTrainedTokenizerBase, conversations: list[list[Answer]], model: str, key: str
) -> None:
    """Reject, before any work, a model whose tokenizer cannot render these prompts and answers.

    Args:
        conversations: a prompt and its answers each; all text, or all messages.
        model, key: the model's folder, and the key of the recipe that names it.

    Raises:
        UserError: no chat template, one that does not accept the messages, or one in which an answer does not follow
            the prompt or has no end; for text, no token that ends a text.
    """
    if isinstance(conversations[0][0], str):
        if tokenizer.eos_token is None:
            raise UserError(f"'{key}': {model} has no end-of-text token (eos_token); set one in its tokenizer")
        return
    if not tokenizer.chat_template:
        raise UserError(f"'{key}': {model} has no chat template; use prompts of plain text, or add a template")
    try:
        for prompt, *answers in conversations:
            encode_prompt(tokenizer, prompt)
            encode_answers(tokenizer, prompt, *answers)
        prompt = _QUESTION
        encoded = encode_answers(tokenizer, prompt, _ANSWER)
    except TemplateError as error:
        raise UserError(
            f"'{key}': the chat template of {model} does not accept the conversation {content(prompt)!r:.60} "
            f"({one_line(error)}); remove it, or change the template"
        ) from None
    if not encoded.as_shown or _last_special(tokenizer, encoded.answers[0]) is None:
        raise UserError(
            f"'{key}': in the chat template of {model} an answer does not follow the generation prompt, or does not "
            "end with a special token; fix the template"
        )


def _last_special(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> int | None:
    """The position of the last special token; None if there is none."""
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    return max((place for place, token in enumerate(ids) if token in special), default=None)
