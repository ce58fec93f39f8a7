"""Check that a model's files hold exactly the weights of its configuration."""

from collections.abc import Iterable

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

import modeling_scratch  # noqa: F401  (registers our classes with the Auto classes)
from training.common.errors import UserError, one_line
from training.model_io.model_folder import check_generation_config, quiet_loading
from training.model_io.model_kinds import kind_of


def check_weights(
    model: str,
    key: str,
    trust_remote_code: bool | None = None,
    revision: str = "main",
    model_class: type = AutoModelForCausalLM,
) -> None:
    """Reject a model, a causal language model by default, whose weights are not exactly those of its `config.json`.

    transformers itself initializes missing weights at random, ignores unknown ones, and continues. Here its loader runs
    on the meta device, where it reads names and shapes from the header of each file, but no weights. That takes a
    fraction of a second for any size, so that every command can check before it writes or loads anything.
    It also falls back to default generation settings if it cannot read the model's; these are checked too.

    Args:
        model: a folder, or a name on the Hub.
        key: of the recipe that names it.
        revision: of a name on the Hub.
        model_class: the Auto class that opens it.

    Raises:
        UserError: weights missing, unknown or of another shape, files damaged, missing or not safetensors, or a
            configuration that no model can be made from; or a model of another kind.
    """
    check_generation_config(model, key)
    try:
        with quiet_loading():
            network, report = model_class.from_pretrained(
                model,
                revision=revision,
                device_map="meta",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported instead of raised
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
            )
    except SafetensorError as error:
        raise UserError(f"'{key}': {model}: a weights file is damaged ({error}); copy or write it again") from None
    except Exception as error:  # of any class, where a file holds something else than transformers expects
        said = error.__cause__ if isinstance(error, StrictDataclassError) else error  # the message of the check itself
        reason = one_line(said)
        raise UserError(f"'{key}': {model} holds no safetensors model that can be loaded ({reason})") from None
    shapes = [
        f"{name} is {_size(found)} instead of {_size(wanted)}" for name, found, wanted in report["mismatched_keys"]
    ]
    problems = [
        f"{len(names)} {what} ({_first(names)})"
        for what, names in {
            "missing": report["missing_keys"],
            "unknown": report["unexpected_keys"],
            "of another shape": shapes,
        }.items()
        if names
    ]
    kind = kind_of(network.config.architectures, network.config.num_labels)
    if problems and kind.auto_model() is not model_class:
        raise UserError(f"'{key}': {model} is a {kind.name}; {kind.use}")
    if problems:
        raise UserError(
            f"'{key}': the weights in {model} do not match its config.json: {', '.join(problems)}; "
            "copy or download the folder again"
        )


def _size(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def _first(names: Iterable[str], limit: int = 3) -> str:
    names = sorted(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
