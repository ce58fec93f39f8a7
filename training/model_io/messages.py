"""Messages of a conversation: checked, and converted to the one form that chat templates read."""

import json
from typing import Any

Message = dict[str, Any]

ROLES = {"human": "user", "gpt": "assistant"} | {role: role for role in ("user", "assistant", "system", "tool")}
ROLES |= {"developer": "system"}  # OpenAI's newer name

_TEXT = ("text", "input_text", "output_text")  # types of parts that are text, in OpenAI's two interfaces
_REASONING = ("reasoning_content", "reasoning", "thinking")  # names of what the assistant thought before it answered


def check_messages(value: Any, column: str) -> list[Message]:
    """A conversation in the form that chat templates read.

    Every message has a role of `ROLES`, and `content` that is text. Tool calls are in `tool_calls`, their arguments as
    JSON text, and reasoning is in `reasoning_content`. Other keys stay as they are.

    Raises:
        ValueError: what is wrong with it, or what a language model cannot learn.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"'{column}' is not a list of messages")
    return [_check_message(message, f"message {number} of '{column}'") for number, message in enumerate(value, start=1)]


def _check_message(message: Any, where: str) -> Message:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ValueError(f"{where} has no role")
    role = ROLES.get(message["role"])
    if role is None:
        raise ValueError(f"{where} has the role {message['role']!r}; known: {', '.join(ROLES)}")
    if message.get("function_call"):
        raise ValueError(f"{where} has a 'function_call'; write it as 'tool_calls'")
    if message.get("weight") == 0:
        raise ValueError(f"{where} has the weight 0, but answers cannot be left out of the loss; remove the key")
    calls = message.get("tool_calls") or []
    reasoning = _reasoning(message)
    if (calls or reasoning) and role != "assistant":
        raise ValueError(f"{where}, of the {role}, has tool calls or reasoning, which only the assistant writes")
    content = _text(message.get("content"), where)
    if content is None and not calls:
        raise ValueError(f"{where} has no content")
    checked = {key: value for key, value in message.items() if key not in ("tool_calls", *_REASONING)}
    checked |= {"role": role, "content": content or ""}
    if reasoning:
        if not isinstance(reasoning, str):
            raise ValueError(f"{where} has reasoning that is not text")
        checked["reasoning_content"] = reasoning
    if calls:
        checked["tool_calls"] = [_check_call(call, where) for call in _list(calls, f"{where}: 'tool_calls'")]
    return checked


def _reasoning(message: Message) -> Any:
    """The reasoning in a message, under whichever name; None if it has none."""
    return next((message[key] for key in _REASONING if message.get(key)), None)


def _text(content: Any, where: str) -> str | None:
    """The text of a content, whose parts are joined; None if it has none."""
    if content is None or isinstance(content, str):
        return content
    parts = _list(content, f"{where}: 'content'")
    for part in parts:
        kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
        if kind not in _TEXT or not isinstance(part.get("text"), str):
            raise ValueError(f"{where} has a part of type {kind!r}, which is not text")
    return "".join(part["text"] for part in parts)


def _check_call(call: Any, where: str) -> dict[str, Any]:
    """A tool call as OpenAI writes it: its arguments are JSON text, which keeps each call's own names and nulls."""
    function = _function(call)
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where} has a tool call without a name")
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            parsed = None
    else:
        parsed = arguments = without_nulls(arguments or {})
    if not isinstance(parsed, dict):
        raise ValueError(f"{where}: the arguments of the call of {name} are not a JSON object")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    identity = {"id": call["id"]} if call.get("id") else {}
    return identity | {"type": "function", "function": {"name": name, "arguments": text}}


def _function(entry: Any) -> dict[str, Any]:
    """The function of a tool or a call, which OpenAI puts into `function`; empty if there is none."""
    function = (entry.get("function") or entry) if isinstance(entry, dict) else None
    return function if isinstance(function, dict) else {}


def check_tools(value: Any) -> str | None:
    """Definitions of tools as JSON text, in which each keeps its own keys; None if there are none.

    Raises:
        ValueError: not a list of functions.
    """
    tools = value
    if isinstance(value, str):
        try:
            tools = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("'tools' is not valid JSON") from None
    tools = _list(tools or [], "'tools'")
    for number, tool in enumerate(tools, start=1):
        if not isinstance(_function(tool).get("name"), str):
            raise ValueError(f"tool {number} of 'tools' has no name")
    if isinstance(value, str):
        return value
    return json.dumps(without_nulls(tools), ensure_ascii=False) if tools else None


def as_template_reads(message: Message) -> Message:
    """A message as chat templates read it.

    It has no keys that are null, and the arguments of its calls are an object. Its reasoning is there under all names,
    because each template reads one of them.
    """
    message = {key: value for key, value in message.items() if value is not None}
    if reasoning := _reasoning(message):
        message |= dict.fromkeys(_REASONING, reasoning)
    if message.get("tool_calls"):
        message["tool_calls"] = [_parsed(call) for call in message["tool_calls"]]
    return message


def _parsed(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    if not isinstance(function.get("arguments"), str):
        return call
    return call | {"function": function | {"arguments": json.loads(function["arguments"])}}


def without_nulls(value: Any) -> Any:
    """A value without the keys that are null: `datasets` gives all records the keys of all, null where one has none."""
    if isinstance(value, dict):
        return {key: without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [without_nulls(entry) for entry in value] if isinstance(value, list) else value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{what} is not a list")
    return value
