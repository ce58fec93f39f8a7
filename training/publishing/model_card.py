"""Model card, the README.md of a published model: kind, usage, scores, training data, and how it was made."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.common.json_files import fits
from training.common.tables import as_markdown
from training.corpus.output.samples import plain
from training.corpus.sources.config import PYTHON
from training.model_io.model_kinds import CLASSIFIER, LANGUAGE_MODEL, REWARD_MODEL, ModelKind
from training.publishing.lineage import TrainingData, base_model, training_data
from training.tuning.classification.tfidf_baseline import NAME as TFIDF

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHOWN_LABELS = 20
_HEADING = re.compile(r"^(?=#)", re.MULTILINE)
_FOLDERS = re.compile(r"(?<![\w./:~-])/(?:[^/'\"\[\]{},=]+/)+")  # of an absolute path in a word of a command
_NUMBER = (int, float)
_SCORES = {"accuracy": {"value": _NUMBER, "n": int}, "f1": _NUMBER, "precision": _NUMBER, "recall": _NUMBER}


@dataclass
class CardOptions:
    """The facts that the owner of a model states.

    Attributes:
        name: title of the card.
        description: one paragraph; empty for a sentence by the kind of model.
        license, language: by their Hub names.
        evaluation: folder of `scratch evaluate`, for the table of results.
        evaluated_as: names of the model in that table; empty if the scores are of other models.
    """

    name: str
    description: str
    license: str | None
    language: str | None
    evaluation: str | None
    evaluated_as: tuple[str, ...] = ()


@dataclass
class EngineFile:
    """A model as one file for an engine other than transformers, as its card describes it.

    Attributes:
        library, tag: the Hub's names of the engine and of the format.
        nature: half a sentence.
        commands: that run it, one per line.
        sections: further paragraphs of the card.
    """

    library: str
    tag: str
    nature: str
    commands: str
    sections: list[str]


def model_card(
    options: CardOptions,
    model: "PreTrainedModel",
    kind: ModelKind,
    records: list[dict[str, Any]],
    chat: bool,
    engine: EngineFile | None = None,
) -> str:
    """The text of README.md.

    Args:
        records: of the stages that made the model, see `lineage`.
        chat: whether it answers messages.
        engine: what the folder holds instead of a model for transformers.
    """
    from huggingface_hub import ModelCardData

    from modeling_scratch import ScratchConfig

    ours = isinstance(model.config, ScratchConfig)
    stages = [record["stage"] for record in records]
    data = training_data(records)
    metadata = ModelCardData(
        library_name=engine.library if engine else "transformers",
        pipeline_tag=kind.task,
        tags=[
            "scratch",
            *([engine.tag] if engine else []),
            *(["custom_code"] if ours else []),
            *(["reward-model"] if kind is REWARD_MODEL else []),
        ],
        license=options.license,
        language=options.language,
        base_model=base_model(records),
        datasets=list(dict.fromkeys(item.name for item in data if item.on_the_hub)) or None,
    )
    nature = "The model code is in this directory and needs only transformers"
    if not ours:
        nature = f"A stock {type(model).__name__}, so this directory holds no code"
    code = f"```python\n{usage(options.name, kind, chat, ', trust_remote_code=True' if ours else '')}\n```"
    if engine:
        nature, code = engine.nature, f"```bash\n{engine.commands}\n```"
    size = f"{model.num_parameters() / 1e6:.1f}M parameters"
    sections = [
        f"---\n{metadata.to_yaml()}\n---",
        f"# {options.name}",
        options.description or describe(model, kind, stages, base_model(records), chat),
        f"{size}. {nature}:",
        code,
        *(engine.sections if engine else []),
        *_evaluation(options, kind, records),
    ]
    if data:
        sections += ["## Training data", _data_table(data).strip()]
    if records:
        versions = ", ".join(f"{name} {version}" for name, version in records[-1]["versions"].items())
        sections += ["## How it was made", _stage_table(records), f"With {versions}."]
    return "\n\n".join(sections) + "\n"


def describe(model: "PreTrainedModel", kind: ModelKind, stages: list[str], base: str | None, chat: bool) -> str:
    """A description of the model, in a sentence or two.

    Args:
        stages: that made it, oldest first.
        base: the model on the Hub that it was made from.
        chat: whether it answers messages.
    """
    origin = ", trained from scratch" if stages[:1] == ["pretrain"] else f", made from {base}" if base else ""
    if kind is CLASSIFIER:
        labels = [plain(str(label)) for label in model.config.id2label.values()]
        shown = f"the labels {', '.join(labels)}" if len(labels) <= SHOWN_LABELS else f"{len(labels)} labels"
        return f"A text classifier{origin}, with {shown}."
    if kind is REWARD_MODEL:
        return f"A reward model{origin}. It scores the answer in a conversation: the higher, the better."
    if kind is not LANGUAGE_MODEL:
        return f"A {kind.name}{origin}."
    if chat:
        return f"A language model{origin}.{' It answers messages.' if stages else ''}"
    return f"A base language model{origin}. It continues text; it was not trained to answer messages."


def usage(name: str, kind: ModelKind, chat: bool, trust: str) -> str:
    """Python code that loads a model from the Hub and uses it.

    Args:
        trust: the argument that allows code from the Hub, or empty.
    """
    model = f'"YOUR_NAME/{name}"{trust}'
    if kind is LANGUAGE_MODEL:
        prompt = '[{"role": "user", "content": "Hello"}]' if chat else '"Once"'
        lines = ["from transformers import pipeline", "", f'generator = pipeline("text-generation", {model})']
        return "\n".join([*lines, f"print(generator({prompt}))"])
    if kind in (CLASSIFIER, REWARD_MODEL) and not (kind is REWARD_MODEL and chat):
        lines = ["from transformers import pipeline", "", f'classifier = pipeline("{kind.task}", {model})']
        return "\n".join([*lines, 'print(classifier("A text"))'])
    lines = [
        f"from transformers import {kind.auto_class}, AutoTokenizer",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({model})",
        f"model = {kind.auto_class}.from_pretrained({model})",
    ]
    if kind is REWARD_MODEL:
        lines += [
            'messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}]',
            'inputs = tokenizer.apply_chat_template(messages, return_dict=True, return_tensors="pt")',
            "print(model(**inputs).logits.item())",
        ]
    else:
        lines += ['print(model(**tokenizer("A text", return_tensors="pt")))']
    return "\n".join(lines)


def _evaluation(options: CardOptions, kind: ModelKind, records: list[dict[str, Any]]) -> Iterator[str]:
    """The section of results: of `scratch evaluate`, or what `classify` and `reward` measured themselves."""
    if options.evaluation:
        results = (Path(options.evaluation) / "results.md").read_text(encoding="utf-8")
        yield _HEADING.sub("#", results.strip())  # its title becomes a section of the card
        names = " and ".join(plain(name) for name in options.evaluated_as)
        yield f"This model is {names} in the table." if names else "The scores are of other models, not of this one."
        return
    trained = [record["metrics"] for record in records if record["stage"] in ("classify", "reward")]
    metrics = trained[-1] if trained else {}
    if kind is CLASSIFIER and fits(metrics.get("test"), _SCORES):
        names = {"this model": "test", TFIDF: "baseline"}
        rows = [["", "accuracy", "F1", "precision", "recall"]]
        for name, split in names.items():
            if fits(metrics.get(split), _SCORES):
                found = metrics[split]
                row = [found["accuracy"]["value"], found["f1"], found["precision"], found["recall"]]
                rows.append([name, *(f"{value:.4f}" for value in row)])
        positive = metrics.get("positive")
        of = f"the label {plain(str(positive))}" if positive else "the mean over the labels"
        yield "## Evaluation"
        yield f"On {metrics['test']['accuracy']['n']:,} test texts; F1, precision and recall are those of {of}."
        yield as_markdown(rows).strip()
    elif kind is REWARD_MODEL and fits(metrics.get("accuracy"), _SCORES["accuracy"]):
        accuracy = metrics["accuracy"]
        yield "## Evaluation"
        yield (
            f"On held-out pairs it scores the chosen answer higher in {accuracy['value']:.1%} of the cases "
            "(50% by chance)."
        )


def _data_table(data: list[TrainingData]) -> str:
    rows = [["stage", "data", "licence", "documents", "MB"]]
    for item in data:
        python = item.name == PYTHON
        rows.append(
            [
                item.stage,
                "the installed Python source" if python else plain(item.name),
                plain(item.license or ("that of each package" if python else "not stated")),
                "" if item.documents is None else f"{item.documents:,}",
                "" if item.bytes is None else f"{item.bytes / 1e6:,.2f}",
            ]
        )
    return as_markdown(rows)


def _stage_table(records: list[dict[str, Any]]) -> str:
    rows = ["| stage | minutes | command |", "|---|---|---|"]
    for record in records:
        checkpoint = record.get("checkpoint")
        name = f"{record['stage']}, {checkpoint}" if checkpoint else record["stage"]
        minutes = "" if checkpoint else f"{record['seconds'] / 60:.1f}"
        rows.append(f"| {name} | {minutes} | `{_shown_command(record['command'])}` |")
    return "\n".join(rows)


def _shown_command(command: str) -> str:
    """A command for a cell of a table, with `...` for the folders of an absolute path, which may name the user."""
    try:
        words = shlex.split(command)
    except ValueError:  # edited by hand
        words = command.split()
    return shlex.join(_FOLDERS.sub(".../", word) for word in words).replace("|", "\\|")
