"""Convert a Llama, Qwen3 or GPT-2 checkpoint of transformers to a scratch model.

    scratch import --model FOLDER --output_dir runs/mine

The network is the same, logit for logit; `scratch sft`, `evaluate` and `export` take the result. FOLDER is a local
folder or a Hub name, with weights as safetensors: a language model, a classifier or a reward model. The tokenizer and
the generation settings are copied.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.common.errors import UserError, one_line
from training.common.hub_names import is_hub_name
from training.model_io.model_kinds import describe_adapter, is_adapter, kind_of
from training.stages.flags import parse
from training.stages.help import command_line
from training.stages.provenance import digest
from training.stages.recipe import PathText, required
from training.stages.stage import Stage

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass
class ImportConfig:
    """Recipe of `scratch import`."""

    model: PathText = required("folder or Hub name of a Llama, Qwen3 or GPT-2, with config.json and safetensors")
    output_dir: PathText = required("folder for the model")


def main(arguments: list[str]) -> None:
    """Import a model.

    1. Find the folder, or download it; check its architecture and tokenizer.
    2. Convert configuration and weights, and save them with the tokenizer.
    3. Compare the logits of both folders.

    Raises:
        UserError: no such model, another architecture, a damaged file, or different logits.
    """
    config = parse(ImportConfig, arguments, __doc__)

    from modeling_scratch.conversion_scratch import from_stock
    from training.model_io.model_folder import (
        GENERATION_CONFIG,
        check_generation_config,
        copy_tokenizer,
        no_progress_bars,
        read_weights,
        write_model,
    )
    from training.model_io.parity import check_parity
    from training.model_io.tokenizers import has_tokenizer, open_model_tokenizer

    source, identity = find(config.model)
    network = read_config(source, config.model)
    kind = kind_of(network.architectures, network.num_labels)
    check_generation_config(source, "model")
    if has_tokenizer(source):
        open_model_tokenizer(source, "model")
    stage = Stage("import", config.output_dir, config, {"model": identity}, arguments)
    if stage.is_current():
        return
    try:
        with no_progress_bars():
            model = from_stock(network, read_weights(source))
    except ValueError as error:
        raise UserError(f"'model': {config.model}: {error}") from None

    folder = stage.begin()
    parameters = model.num_parameters()
    write_model(model, folder)
    if (source / GENERATION_CONFIG).is_file():
        shutil.copyfile(source / GENERATION_CONFIG, folder / GENERATION_CONFIG)
    tokenizer = copy_tokenizer(source, folder, model)
    if tokenizer:
        name_tokenizer_class(source, folder)
    del model
    difference = check_parity(source, folder, kind.auto_model())
    stage.finish(
        {"parameters": parameters, "difference": difference},
        f"{network.model_type}, {parameters / 1e6:.1f}M parameters, {'with' if tokenizer else 'without'} tokenizer; "
        f"logits within {difference:.1e} of the original's",
        uses=[command_line("export", "--model", config.output_dir, "--output_dir", f"{config.output_dir}-export")],
    )


def find(model: str) -> tuple[Path, str]:
    """The folder of a model, downloaded if it is a name on the Hub, and a text that identifies its content.

    Raises:
        UserError: no such folder, and the download failed.
    """
    from huggingface_hub import snapshot_download

    from training.model_io.model_folder import GENERATION_CONFIG, TEKKEN, TOKENIZER_FILES

    if not is_hub_name(model):
        return Path(model), digest(model, "model")
    wanted = ["config.json", GENERATION_CONFIG, "model*.safetensors", "model.safetensors.index.json"]
    wanted += [*TOKENIZER_FILES, TEKKEN]
    try:
        folder = Path(snapshot_download(model, allow_patterns=wanted))
    except (OSError, ValueError) as error:  # the Hub's own errors are of these kinds
        reason = one_line(error)
        raise UserError(
            f"'model': there is no folder {model}, and the download from the Hub failed ({reason})"
        ) from None
    return folder, f"{model}@{folder.name}"  # the snapshot is named after its commit


def read_config(source: Path, model: str) -> "PreTrainedConfig":
    """The configuration of a stock model that can be imported.

    Args:
        source: its folder.
        model: its name in the recipe, for errors.

    Raises:
        UserError: not a model, another architecture, or an option that our class lacks.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    from modeling_scratch.conversion_scratch import ARCHITECTURES, scratch_config

    file = source / "config.json"
    if is_adapter(source):
        raise UserError(f"'model': {describe_adapter(source)}")
    if not file.is_file():
        raise UserError(f"'model': {model} holds no model (no config.json)")
    try:
        kind = json.loads(file.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError):
        raise UserError(f"'model': {model}: config.json is damaged") from None
    if kind == "scratch":
        raise UserError(
            f"'model': {model} is already a scratch model; `scratch export` and the other stages take it as it is"
        )
    if kind not in ARCHITECTURES:
        raise UserError(
            f"'model': {model} is a {kind}; scratch imports {', '.join(ARCHITECTURES)}, and `scratch sft`, `evaluate`, "
            "`chat` and `export` take others as they are"
        )
    try:
        network = AutoConfig.from_pretrained(source)
        scratch_config(network)
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        cause = one_line(error.__cause__ or error)
        raise UserError(f"'model': {model}: {cause}") from None
    return network


def name_tokenizer_class(source: Path, folder: Path) -> None:
    """Name the tokenizer's class in its settings, where a folder leaves it to the kind of model, as GPT-2's does."""
    from transformers import AutoTokenizer

    from training.model_io.model_folder import set_tokenizer_options

    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if "tokenizer_class" not in settings:
        set_tokenizer_options(folder, tokenizer_class=type(AutoTokenizer.from_pretrained(source)).__name__)
