"""`scratch COMMAND`: the table of commands, and how a failure becomes one line and an exit code."""

import errno
import importlib
import importlib.metadata
import os
import platform
import sys
from typing import Literal

from training.common.errors import UserError, caused_by, disk_full, nearest, one_line, out_of_memory, printable
from training.common.packages import DISTRIBUTION, how_to_install
from training.common.processes import print_any_text, print_error, rank, rank_zero_stdout
from training.common.signals import Interrupted, no_interrupt_lost
from training.machine.memory import keep_freed_memory
from training.machine.threads import use_reproducible_products
from training.stages.flags import split_restart

# Group: command: (module below training.commands, what it does).
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Start": {
        "run": ("run", "run all stages of a recipe folder in order; skip those that are up to date"),
        "plan": ("plan", "predict parameters, memory, time and cost of a run before it starts"),
    },
    "Data": {
        "tokenizer": ("tokenizer", "train a byte-pair (or character) tokenizer, compare several, or show one at work"),
        "prepare": ("prepare", "clean, split and tokenize documents; write shards, and examples for later stages"),
    },
    "Train": {
        "pretrain": ("pretrain", "train a model from random weights on the shards"),
        "watch": ("watch", "show a training run in the terminal while it goes on: losses, speed, samples"),
    },
    "Fine-tune": {
        "sft": ("sft", "fine-tune on instructions (TRL's SFT)"),
        "reward": ("reward", "train a reward model on chosen and rejected answers (TRL)"),
        "dpo": ("dpo", "tune on chosen and rejected answers (TRL's DPO)"),
        "kto": ("kto", "tune on single answers labelled good or bad (TRL's KTO)"),
        "orpo": ("orpo", "tune on preferences without a reference model (TRL's ORPO, experimental)"),
        "grpo": ("grpo", "train with rewards from checks or a reward model (TRL's GRPO)"),
        "rloo": ("rloo", "train with rewards and the leave-one-out baseline (TRL's RLOO)"),
        "classify": ("classify", "train a text classifier, such as spam or ham"),
    },
    "Use": {
        "evaluate": ("evaluate", "measure models: bits per byte, answers, preferences, lm-eval tasks; or compare them"),
        "export": ("export", "write a folder to publish: the model, converted if requested, and its model card"),
        "import": ("import_model", "convert a Llama, Qwen3 or GPT-2 checkpoint to a scratch model"),
        "push": ("push", "upload an exported model, or a prepared corpus, to the Hub"),
        "chat": ("chat", "talk to a model in the terminal"),
        "complete": ("complete", "continue a text with a model, such as a pretrained one"),
        "serve": ("serve", "serve a model with an OpenAI-compatible API"),
        "arena": ("arena", "rate models by votes on pairs of answers; turn votes into preferences for DPO"),
        "attention": ("attention", "draw what the attention heads of a model do, and how they formed; knock heads out"),
        "plot": ("plot", "plot the curves of several pretraining runs in one figure"),
        "report": ("report", "print the results of a run as a table, and plot them"),
    },
}
# Command: (module, what it does).
COMMANDS = {
    name: (f"training.commands.{module}", about)
    for commands in GROUPS.values()
    for name, (module, about) in commands.items()
}


def usage() -> str:
    """The page of `scratch --help`."""
    lines = [
        "Build a language model from scratch, one command per stage.",
        "",
        "usage: scratch COMMAND [--config RECIPE] [--key value ...]",
        "       scratch COMMAND --help             the options of a command",
        "       scratch COMMAND --print_config     the complete recipe of a stage, with comments",
        "       scratch --version",
    ]
    for group, commands in GROUPS.items():
        lines += ["", group, *(f"  {name:<10} {about}" for name, (_, about) in commands.items())]
    return "\n".join([*lines, "", "Start here: scratch run recipes/quickstart"])


def version() -> str:
    """Our version, Python's, and those of the packages that results depend on."""
    versions = {}
    for package in (DISTRIBUTION, "torch", "transformers", "tokenizers", "trl"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "(not installed)"
    ours = versions.pop(DISTRIBUTION)
    others = ", ".join(f"{package} {number}" for package, number in versions.items())
    return f"scratch {ours} (Python {platform.python_version()}, {others})"


def explain(error: Exception) -> str | None:
    """One line for a failure of the machine rather than of the program, or None."""
    reason = one_line(error)
    if disk_full(error):
        line = f"no space left on the disk ({reason}); free some and run the command again, earlier outputs are intact"
    elif caused_by(error, errno.EIO):
        line = f"a disk cannot be read or written ({reason}); check it and run the command again"
    elif caused_by(error, errno.EROFS):
        line = f"the disk is read-only ({reason}); mount it for writing, or choose another folder, and run it again"
    elif out_of_memory(error):
        line = (
            f"out of memory{f' ({reason})' if reason else ''}; lower the batch size, the length of sequences or the "
            "size of the model, or set activation_checkpointing; `scratch plan` predicts what a run needs"
        )
    elif isinstance(error, PermissionError):
        line = f"permission denied: {error.filename}; change its permissions or choose another folder"
    elif isinstance(error, OSError) and error.filename is not None and error.strerror:
        line = f"{error.filename}: {error.strerror}; check that file or folder and run the command again"
    elif isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] != "training":
        line = f"the package '{error.name}' is not installed; {how_to_install(error.name)}"
    else:
        return None
    return printable(line)


def note_end(kind: Literal["mistake", "failure", "stopped"], reason: str) -> None:
    """Record why the stage of this process ends unfinished, see `Stage.note_end`."""
    from training.stages.stage import Stage  # which help need not wait for

    Stage.note_end(kind, reason)


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        Its exit code: 2 for a mistake of the user's, 1 for a failure of the machine, 128 + n for signal n.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(version())
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        print(f"error: unknown command '{command}'; {nearest(command, COMMANDS)}", file=sys.stderr)
        return 2
    use_reproducible_products()
    keep_freed_memory()
    print_any_text()
    try:
        with no_interrupt_lost(), rank_zero_stdout():
            importlib.import_module(COMMANDS[command][0]).main(rest)
    except UserError as error:
        note_end("mistake", str(error))
        print_error(str(error))
        return 2
    except Interrupted as stopped:
        note_end("stopped", str(stopped))
        if rank() == 0:
            print(f"{command}: {stopped}", file=sys.stderr)
        return 128 + stopped.signum
    except KeyboardInterrupt:
        note_end("stopped", "interrupted")
        again = "the same command without --restart" if split_restart(rest)[0] else "the same command"
        advice = f"run {again} to resume or start again, earlier outputs are intact"
        print(f"{command}: interrupted; {advice}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        note_end("stopped", "the program that read its output has ended")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        line = explain(error)
        note_end("failure", line or one_line(f"{type(error).__name__}: {error}"))
        if line is None:
            raise
        print_error(line)
        return 1
    return 0
