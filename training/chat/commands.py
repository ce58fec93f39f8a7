"""The commands of a conversation, such as /set and /save, and their help."""

from typing import NamedTuple


class Command(NamedTuple):
    argument: str
    help: str


COMMANDS = {
    "compare": Command("MODEL", "let a second model answer too, starting with the last message; without MODEL: stop"),
    "set": Command(
        "KEY VALUE", "change a setting, as in /set temperature 0.7 (null: the model's own); without KEY: show all"
    ),
    "system": Command("TEXT", "use this system prompt from the next answer on; without TEXT: none"),
    "retry": Command("", "answer the last message again"),
    "undo": Command("", "remove the last message and its answer"),
    "clear": Command("", "start a new conversation"),
    "save": Command("FILE", "append the conversation to a JSON lines file, which scratch sft can train on"),
    "speed": Command("", "show tokens per second of the last answer"),
    "help": Command("", "show this list"),
    "exit": Command("", "quit, as Ctrl-D does"),
}


def command_list() -> str:
    """One line per command: its name, its argument and its help."""
    return "\n".join(f"  {f'/{name} {argument}':<15} {help}" for name, (argument, help) in COMMANDS.items())
