"""`scratch VERB`: build a language model from scratch, one stage a verb."""

import errno
import importlib
import sys

from training.common.errors import UserError, one_line
from training.common.processes import print_error, rank, rank_zero_stdout
from training.common.signals import Interrupted, no_interrupt_lost

# verb: (module, what it does)
VERBS = {
    "run": ("training.commands.run", "all stages of a recipe folder, in order; up-to-date ones are skipped"),
    "tokenizer": ("training.commands.tokenizer", "learn a byte-pair (or character) vocabulary from documents"),
    "prepare": ("training.commands.prepare", "documents to cleaned, split, tokenised shards, and examples for the later stages"),
    "pretrain": ("training.commands.pretrain", "train a model from random weights on the shards"),
    "sft": ("training.commands.sft", "supervised fine-tuning on instructions (TRL)"),
    "reward": ("training.commands.reward", "a model that scores answers, from chosen and rejected ones (TRL)"),
    "dpo": ("training.commands.dpo", "preference tuning on chosen and rejected answers (TRL, PEFT)"),
    "kto": ("training.commands.kto", "preference tuning on answers judged one by one (TRL)"),
    "orpo": ("training.commands.orpo", "preference tuning without a reference model (TRL, experimental there)"),
    "grpo": ("training.commands.grpo", "reinforcement by rewards that can be checked, or by a reward model (TRL)"),
    "rloo": ("training.commands.rloo", "the same with the leave-one-out baseline of REINFORCE (TRL)"),
    "classify": ("training.commands.classify", "teach a model the labels of texts, such as spam or ham"),
    "evaluate": ("training.commands.evaluate", "bits per byte, answers, preferences and lm-eval tasks, model by model"),
    "export": ("training.commands.export", "the directory to publish, with its model card; of our class or a stock one"),
    "import": ("training.commands.import_model", "a Llama, Qwen3 or GPT-2 of transformers as a model of ours"),
    "push": ("training.commands.push", "upload an exported directory to the Hub, or a corpus (--dataset)"),
    "chat": ("training.commands.chat", "talk to a model in the terminal"),
    "serve": ("training.commands.serve", "an OpenAI-shaped server (`transformers serve`) that knows our classes"),
    "plot": ("training.commands.plot", "the curves of several pretrainings in one picture, and a table"),
    "report": ("training.commands.report", "the table and the picture of a finished run"),
}


def usage() -> str:
    lines = [__doc__, "", "usage: scratch VERB --help | scratch VERB --config RECIPE [--key value ...]", ""]
    lines += [f"  {verb:<10} {about}" for verb, (_, about) in VERBS.items()]
    return "\n".join([*lines, "", "Start here: scratch run recipes/quickstart"])


def explain(error: Exception) -> str | None:
    """One line for a failure that is the machine's rather than the program's, or None."""
    words = one_line(error)
    if disk_full(error):
        return f"no space left on the disk ({words}); free some and try again, earlier outputs are whole"
    if isinstance(error, PermissionError):
        return f"not allowed to write or read {error.filename}; change its permissions or choose another folder"
    if isinstance(error, ModuleNotFoundError):
        return f"the package '{error.name}' is not installed; pip install 'scratch[train,eval]' brings it"
    return None


def disk_full(error: BaseException | None) -> bool:
    """Whether a full disk, a used-up quota or the limit of a file's size (ulimit) is what an error comes from."""
    while error:
        # The Rust libraries quote the system; torch only notices that its file is shorter than it should be.
        told = any(
            words in str(error) for words in ("No space left", "quota exceeded", "File too large", "unexpected pos")
        )
        if told or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)):
            return True
        error = error.__cause__ or error.__context__
    return False


def main(arguments: list[str] | None = None) -> int:
    """Run one verb. Returns its exit code: 2 for the user's mistake, 1 for the machine's, 128 + n for a signal."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        from training.common.recipe import nearest

        print(f"error: unknown verb '{verb}'; {nearest(verb, VERBS)}", file=sys.stderr)
        return 2
    try:
        with no_interrupt_lost(), rank_zero_stdout():
            importlib.import_module(VERBS[verb][0]).main(rest)
    except UserError as error:
        print_error(str(error))
        return 2
    except Interrupted as stopped:
        if rank() == 0:
            print(f"{verb}: {stopped}", file=sys.stderr)
        return 128 + stopped.signum
    except KeyboardInterrupt:
        advice = "the same command goes on or starts again, earlier outputs are whole"
        print(f"{verb}: interrupted; {advice}", file=sys.stderr)
        return 130
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        print_error(line)
        return 1
    return 0


