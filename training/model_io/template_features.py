"""Features of chat templates beside roles and contents, such as tool calls, found by rendering an example of each."""

import functools
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from training.model_io.messages import Message, as_template_reads

# Words that no template contains, where a feature puts something that the model has to read.
_NAME, _KEY, _VALUE, _SAID = "probe_name", "probe_key", "probe_value", "probe_said"

_QUESTION, _ANSWER = {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}
_PARAMETERS = {
    "type": "object",
    "properties": {_KEY: {"type": "string", "description": _VALUE}},
    "required": [_KEY],
}
_TOOL = {"type": "function", "function": {"name": _NAME, "description": _SAID, "parameters": _PARAMETERS}}
_CALL = {"id": "123456789", "type": "function", "function": {"name": _NAME, "arguments": {_KEY: _VALUE}}}
_CALLING = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
_RESULT = {"role": "tool", "name": _NAME, "tool_call_id": "123456789", "content": _SAID}

# Each feature's conversation and tools, and the words that a template which has the feature writes.
_EXAMPLES: dict[str, tuple[list[Message], list[Any] | None, tuple[str, ...]]] = {
    "tools": ([_QUESTION, _ANSWER], [_TOOL], (_NAME, _SAID, _KEY)),
    "tool calls": ([_QUESTION, _CALLING, _RESULT, _ANSWER], None, (_NAME, _KEY, _VALUE)),
    "tool results": ([_QUESTION, _CALLING, _RESULT, _ANSWER], None, (_SAID,)),
    "reasoning_content": ([_QUESTION, _ANSWER | {"reasoning_content": _SAID}], None, (_SAID,)),
}


def features(messages: list[Message], tools: list[Any] | None = None) -> set[str]:
    """The features that a conversation needs of a chat template."""
    found = {"tools"} if tools else set()
    for message in messages:
        if message["role"] == "tool":
            found.add("tool results")
        if message.get("tool_calls"):
            found.add("tool calls")
        if message.get("reasoning_content"):
            found.add("reasoning_content")
    return found


def check_features(tokenizer: PreTrainedTokenizerBase, template: str, needed: set[str]) -> None:
    """Reject a template that would silently leave something out.

    Args:
        needed: see `features`.

    Raises:
        jinja2.TemplateError: what the template does not render.
    """
    missing = sorted(feature for feature in needed if not _renders(tokenizer, template, feature))
    if missing:
        raise TemplateError(f"it does not render {' and '.join(missing)}")


@functools.lru_cache(maxsize=32)
def _renders(tokenizer: PreTrainedTokenizerBase, template: str, feature: str) -> bool:
    messages, tools, words = _EXAMPLES[feature]
    messages = [as_template_reads(message) for message in messages]
    variables = tokenizer.special_tokens_map
    try:
        texts, _ = render_jinja_template([messages], tools=tools, chat_template=template, **variables)
    except Exception:  # of any class: its expressions may raise
        return False
    return all(word in texts[0] for word in words)
