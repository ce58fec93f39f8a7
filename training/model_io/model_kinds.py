"""Kinds of models, told by a folder's files alone, so that each command says at once whether it takes the folder."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from training.common.errors import UserError
from training.common.hub_names import is_hub_name
from training.stages.provenance import LANGUAGE_MODELS, check_stage, digest

ADAPTER_CONFIG = "adapter_config.json"
MODEL_STAGES = (*LANGUAGE_MODELS, "classify", "reward")  # the stages that write a model of any kind


@dataclass(frozen=True)
class ModelKind:
    """The kind of a model, by the output of its class.

    Attributes:
        name: in words.
        task: transformers' name of its pipeline, which the Hub uses too.
        auto_class: name of the class of transformers that opens it.
        use: what to do with it where another kind is required, as the end of an error message.
    """

    name: str
    task: str
    auto_class: str
    use: str

    def auto_model(self) -> type:
        """The class of transformers that opens it."""
        import transformers

        return getattr(transformers, self.auto_class)


_PUBLISH = "publish it with `scratch export` and `scratch push`"
LANGUAGE_MODEL = ModelKind(
    "language model", "text-generation", "AutoModelForCausalLM", "train a reward model from it with `scratch reward`"
)
CLASSIFIER = ModelKind(
    "classifier",
    "text-classification",
    "AutoModelForSequenceClassification",
    f'label texts with transformers\' pipeline("text-classification"), or {_PUBLISH}',
)
REWARD_MODEL = ModelKind(
    "reward model",
    "text-classification",
    "AutoModelForSequenceClassification",
    "score answers with it in `scratch evaluate` (chats.NAME.reward_model) or `scratch grpo` "
    f"(reward_model_name_or_path), or {_PUBLISH}",
)
TOKEN_CLASSIFIER = ModelKind(
    "token classifier",
    "token-classification",
    "AutoModelForTokenClassification",
    f'label tokens with transformers\' pipeline("token-classification"), or {_PUBLISH}',
)
QUESTION_ANSWERING = ModelKind(
    "question-answering model",
    "question-answering",
    "AutoModelForQuestionAnswering",
    f"answer questions with transformers' AutoModelForQuestionAnswering, or {_PUBLISH}",
)
_BY_CLASS = {
    "ForSequenceClassification": CLASSIFIER,
    "ForTokenClassification": TOKEN_CLASSIFIER,
    "ForQuestionAnswering": QUESTION_ANSWERING,
}


def kind_of(architectures: list[str] | None, num_labels: int) -> ModelKind:
    """The kind of a model by its configuration: a language model, unless the name of its class says otherwise.

    Args:
        architectures: the names of its class.
        num_labels: 1 tells a reward model from a classifier.
    """
    name = (architectures or [""])[0]
    kind = next((kind for ending, kind in _BY_CLASS.items() if name.endswith(ending)), LANGUAGE_MODEL)
    return REWARD_MODEL if kind is CLASSIFIER and num_labels == 1 else kind


def model_kind(folder: str | Path, *stages: str, key: str) -> ModelKind:
    """The kind of the model in a folder, whoever wrote it.

    Args:
        stages: that write what is required, for errors about a folder that is missing or the output of another stage.
        key: of the recipe that names the folder, for errors.

    Raises:
        UserError: the folder holds an adapter, or no model, or its configuration is damaged.
    """
    folder = Path(folder)
    file = folder / "config.json"
    if is_adapter(folder):
        raise UserError(f"'{key}': {describe_adapter(folder)}")
    if not file.is_file():
        check_stage(folder, *stages, key=key)
        raise UserError(f"'{key}': {_describe_missing(folder)}")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        # transformers does not write its default, two labels.
        return kind_of(config.get("architectures"), len(config.get("id2label") or ()) or config.get("num_labels", 2))
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError):
        raise UserError(f"'{key}': {file} is damaged; restore it, or write the model again") from None


def check_model_kind(folder: str | Path, kind: ModelKind, *stages: str, key: str) -> None:
    """Reject a folder that holds no model, or one of another kind.

    Args:
        stages, key: see `model_kind`.

    Raises:
        UserError: says what the folder is, and what to do with it or to give instead.
    """
    found = model_kind(folder, *stages, key=key)
    if found is not kind:
        raise UserError(f"'{key}': {folder} is a {found.name}, not a {kind.name}; {found.use}")


def model_digest(model: str, key: str) -> str:
    """A hash that identifies the language model a stage starts from; a name on the Hub is returned as it is.

    Raises:
        UserError: the folder is missing, or holds no language model.
    """
    if is_hub_name(model):
        return model
    check_model_kind(model, LANGUAGE_MODEL, *LANGUAGE_MODELS, key=key)
    return digest(model, key)


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter instead of a model."""
    return (Path(folder) / ADAPTER_CONFIG).is_file()


def describe_adapter(folder: str | Path) -> str:
    """An adapter and how it is used where a model is required, as the end of an error message."""
    try:
        base = json.loads((Path(folder) / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, LookupError, TypeError, RecursionError):
        base = None
    command = ["scratch", "export", "--model", str(base or "BASE"), "--adapter", str(folder), "--output_dir"]
    return f"{folder} is an adapter; merge it into its base with `{shlex.join([*command, f'{folder}-merged'])}`"


def _describe_missing(folder: Path) -> str:
    """A folder without a model, and what to give instead: the newest of the checkpoints in it, if it has some."""
    inner = [file.parent for pattern in ("*/config.json", "*/*/config.json") for file in folder.glob(pattern)]
    if inner:
        newest = max(inner, key=lambda path: (len(path.name), path.name))
        return f"{folder} holds no model itself (no config.json); give a folder in it that does, such as {newest}"
    return f"{folder} holds no model (no config.json); give the output of `scratch pretrain` or a later stage"
