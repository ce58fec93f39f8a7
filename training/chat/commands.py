"""The commands of a conversation."""

from typing import NamedTuple


class Command(NamedTuple):
    takes: str  # what stands behind it
    does: str


COMMANDS = {
    "compare": Command("MODEL", "let another model answer too, the last message first; alone: no longer"),
    "set": Command(
        "KEY VALUE", "change a setting, as in /set temperature 0.7 (null: the model's own); alone: show all"
    ),
    "system": Command("TEXT", "another system prompt, from the next answer on; alone: none"),
    "retry": Command("", "answer the last message again"),
    "undo": Command("", "take the last message and its answer back"),
    "clear": Command("", "begin a new conversation"),
    "save": Command("FILE", "add the conversation to a file of JSON lines, which scratch sft reads"),
    "help": Command("", "this list"),
    "exit": Command("", "end, as Ctrl-D does"),
}


def command_list() -> str:
    return "\n".join(f"  {f'/{name} {takes}':<15} {does}" for name, (takes, does) in COMMANDS.items())
