"""A Llama, Qwen3 or GPT-2 of transformers as a model of ours: scratch import --model FOLDER --output_dir runs/mine

The same network, logit for logit, to go on with in `scratch sft`, `evaluate` and `export`. FOLDER is a local folder or
a name on the Hub that has its weights as safetensors. The tokenizer and the generation settings come along.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

from modeling_scratch.conversion_scratch import ARCHITECTURES, from_stock, scratch_config
from training.common.errors import UserError, one_line
from training.common.hub_names import is_hub_name
from training.common.recipe import parse, required
from training.common.stage import Stage, digest
from training.model_io.model_folder import (
    GENERATION_CONFIG,
    TOKENIZER_FILES,
    copy_tokenizer,
    no_progress_bars,
    read_weights,
    write_model,
)
from training.model_io.parity import check_parity
from training.model_io.tokenizers import has_tokenizer, open_model_tokenizer


@dataclass
class ImportConfig:
    model: str = required("folder or Hub name of a Llama, Qwen3 or GPT-2, with config.json and safetensors")
    output_dir: str = required("folder for the model")


def main(arguments: list[str]) -> None:
    config = parse(ImportConfig, arguments, __doc__)
    source, identity = find(config.model)
    network = read_config(source, config.model)
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
    del model
    if (source / GENERATION_CONFIG).is_file():
        shutil.copyfile(source / GENERATION_CONFIG, folder / GENERATION_CONFIG)
    tokenizer = copy_tokenizer(source, folder)
    if tokenizer:
        name_tokenizer_class(source, folder)
    difference = check_parity(source, folder)
    wrote = f"{network.model_type}, {parameters / 1e6:.1f}M parameters, {'with its' if tokenizer else 'no'} tokenizer; "
    wrote += f"its logits are within {difference:.1e} of the original's"
    stage.finish({"parameters": parameters, "difference": difference}, wrote)
    print(f"next: scratch sft --model_name_or_path {config.output_dir}, or scratch export --model {config.output_dir}")


def find(model: str) -> tuple[Path, str]:
    """The folder of a model, downloaded if need be, and what identifies its content.

    Raises:
        UserError: neither a folder nor a name on the Hub.
    """
    if not is_hub_name(model):
        return Path(model), digest(model, "model")
    wanted = ["config.json", GENERATION_CONFIG, "model*.safetensors", "model.safetensors.index.json", *TOKENIZER_FILES]
    try:
        folder = Path(snapshot_download(model, allow_patterns=wanted))
    except (OSError, ValueError) as error:  # the Hub's own errors are of these kinds
        reason = one_line(error)
        raise UserError(f"'model': {model} is no folder here, and the Hub does not give it ({reason})") from None
    return folder, f"{model}@{folder.name}"  # the snapshot is named after its commit


def read_config(source: Path, model: str) -> PreTrainedConfig:
    """The configuration of a stock model that can come in.

    Raises:
        UserError: not a model, another architecture, or a dial that ours has no equivalent for.
    """
    file = source / "config.json"
    if not file.is_file():
        raise UserError(f"'model': {model} holds no model (no config.json)")
    try:
        kind = json.loads(file.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError):
        raise UserError(f"'model': {model}: config.json is damaged") from None
    if kind == "scratch":
        raise UserError(f"'model': {model} is a model of ours already; the other stages take it as it is")
    if kind not in ARCHITECTURES:
        raise UserError(f"'model': {model} is a {kind}; scratch imports {', '.join(ARCHITECTURES)}")
    try:
        network = AutoConfig.from_pretrained(source)
        scratch_config(network)
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        cause = one_line(error.__cause__ or error)
        raise UserError(f"'model': {model}: {cause}") from None
    return network


def name_tokenizer_class(source: Path, folder: Path) -> None:
    """Write down the tokenizer's class where a folder leaves it to be known from the kind of model, as GPT-2's does."""
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if "tokenizer_class" not in settings:
        settings["tokenizer_class"] = type(AutoTokenizer.from_pretrained(source)).__name__
        file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
