"""Convert a Llama, Qwen3 or GPT-2 of transformers, of a GGUF file or of another project to a scratch model.

    scratch import --model FOLDER --output_dir runs/mine
    scratch import --model model.gguf --output_dir runs/mine
    scratch import --model out/ckpt.pt --characters input.txt --output_dir runs/mine

The network is the same, logit for logit; `scratch sft`, `evaluate` and `export` take the result. FOLDER is a local
folder or a Hub name, with weights as safetensors: a language model, a classifier or a reward model. The tokenizer and
the generation settings are copied.

A GGUF file in F32, F16, BF16 or Q8_0 brings its tokenizer and chat template; the weights become float32.

Checkpoints of nanoGPT, minGPT, llama2.c (.pt and .bin), LLMs-from-scratch and litgpt are recognised by their tensors.
No code that such a file may hold is run.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.common.errors import UserError, one_line
from training.common.hub_names import is_hub_name
from training.common.json_files import read_json
from training.model_io.model_kinds import describe_adapter, is_adapter, kind_of
from training.stages.flags import parse
from training.stages.help import command_line
from training.stages.provenance import digest
from training.stages.recipe import PathText, option, required
from training.stages.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

    from training.foreign.stock import StockModel

    # The model, and the tokenizer with its generation settings if there is one.
    Source = tuple[StockModel, PreTrainedTokenizerBase | None, GenerationConfig | None]

_FOREIGN = "Checkpoint of another project"
_GGUF_HOLDS = ("characters", "heads", "context", "rope_parameters")


@dataclass
class ImportConfig:
    """Recipe of `scratch import`."""

    model: PathText = required(
        "folder or Hub name of a Llama, Qwen3 or GPT-2, with config.json and safetensors; or a GGUF file or another "
        "project's checkpoint, or its folder"
    )
    output_dir: PathText = required("folder for the model")
    tokenizer: PathText | None = option(None, "folder of its tokenizer, with tokenizer.json", group=_FOREIGN)
    characters: PathText | None = option(
        None, "text that a character-level model was trained on; its sorted characters are the tokens", group=_FOREIGN
    )
    heads: int | None = option(
        None, "number of attention heads, if the checkpoint does not hold it", group=_FOREIGN, at_least=1
    )
    context: int | None = option(
        None, "longest sequence in tokens, if the checkpoint does not hold it", group=_FOREIGN, at_least=1
    )
    rope_parameters: dict[str, Any] | None = option(
        None, "rotation as in transformers, if the checkpoint does not hold it", group=_FOREIGN
    )

    def __post_init__(self):
        if self.tokenizer and self.characters:
            raise ValueError("'tokenizer' and 'characters' are both given; leave one out")

    def foreign_keys(self) -> list[str]:
        """The given keys that a model of transformers does not take."""
        keys = ("tokenizer", "characters", "heads", "context", "rope_parameters")
        return [key for key in keys if getattr(self, key) is not None]


def main(arguments: list[str]) -> None:
    """Import a model.

    1. Find the folder, or download it; check its architecture and tokenizer. Or recognise a GGUF file or another
       project's checkpoint.
    2. Convert configuration and weights, and save them with the tokenizer.
    3. Compare the logits of both folders, if transformers opens the original.

    Raises:
        UserError: no such model, another architecture, a damaged file, a size that is neither in the checkpoint nor
            given, or different logits.
    """
    config = parse(ImportConfig, arguments, __doc__)

    from training.engines.gguf_path import find_gguf
    from training.foreign.projects import find_checkpoint

    local = not is_hub_name(config.model)
    if local and (gguf := find_gguf(config.model)):
        import_file(gguf, read_gguf_file, config, arguments)
    elif local and (checkpoint := find_checkpoint(config.model)):
        import_file(checkpoint, read_checkpoint, config, arguments)
    else:
        import_stock(config, arguments)


def read_checkpoint(file: Path, config: ImportConfig) -> "Source":
    """A checkpoint of another project."""
    from training.foreign.projects import read_foreign
    from training.foreign.sizes import Sizes
    from training.foreign.tokenizer import find_tokenizer, settings_of

    stock = read_foreign(file, Sizes(config.heads, config.context, config.rope_parameters))
    tokenizer = find_tokenizer(stock, config.tokenizer, config.characters)
    return stock, tokenizer, tokenizer and settings_of(tokenizer, stock.config.vocab_size, stock.begins)


def read_gguf_file(file: Path, config: ImportConfig) -> "Source":
    """A GGUF file. Its tokenizer is rebuilt, if no other one is given."""
    from training.engines.gguf_network import read_network
    from training.engines.gguf_reader import read_gguf
    from training.engines.gguf_tokenizer import check_same_tokens, has_tokenizer, rebuild_tokenizer, settings_of
    from training.foreign.projects import naming
    from training.foreign.tokenizer import find_tokenizer

    for key in _GGUF_HOLDS:
        if getattr(config, key) is not None:
            raise UserError(f"'{key}': a GGUF file holds what it needs itself; leave '{key}' out")
    checkpoint = read_gguf(file)
    with naming(file):
        stock = read_network(checkpoint)
    tokenizer = find_tokenizer(stock, config.tokenizer, None)
    if tokenizer:
        check_same_tokens(checkpoint, tokenizer, config.tokenizer)
    elif has_tokenizer(checkpoint):
        tokenizer = rebuild_tokenizer(checkpoint)
    return stock, tokenizer, tokenizer and settings_of(checkpoint, tokenizer, stock.config.vocab_size)


def import_file(
    file: Path, read: "Callable[[Path, ImportConfig], Source]", config: ImportConfig, arguments: list[str]
) -> None:
    """Import a file of another format, which `read` opens."""
    from training.foreign.projects import settings_beside, to_scratch
    from training.foreign.tokenizer import attach
    from training.model_io.model_folder import no_progress_bars, write_model

    inputs = {"model": digest(config.model, "model")}
    inputs |= {key: digest(value, key) for key in ("tokenizer", "characters") if (value := getattr(config, key))}
    inputs |= {beside.name: digest(beside, "model") for beside in settings_beside(file)}
    stock, tokenizer, settings = read(file, config)
    stage = Stage("import", config.output_dir, config, inputs, arguments)
    if stage.is_current():
        return
    with no_progress_bars():
        model = to_scratch(file, stock)

    folder = stage.begin()
    parameters = model.num_parameters()
    if tokenizer:
        attach(tokenizer, settings, model, folder)
    else:
        write_model(model, folder)
    text = "with tokenizer" if tokenizer else "without tokenizer: add --tokenizer or --characters to generate text"
    stage.finish(
        {"parameters": parameters},
        f"{stock.project}, {parameters / 1e6:.1f}M parameters, {text}",
        uses=[command_line("complete", config.output_dir)] if tokenizer else [],
    )


def import_stock(config: ImportConfig, arguments: list[str]) -> None:
    """Import a model of transformers."""
    from modeling_scratch.conversion_scratch import from_stock
    from training.model_io.model_folder import (
        GENERATION_CONFIG,
        check_generation_config,
        copy_tokenizer,
        name_tokenizer_class,
        no_progress_bars,
        read_weights,
        write_model,
    )
    from training.model_io.parity import check_parity
    from training.model_io.tokenizers import has_tokenizer, open_model_tokenizer

    if config.foreign_keys():
        raise UserError(
            f"'{config.foreign_keys()[0]}': only a checkpoint of another project takes it, and {config.model} is none; "
            "leave it out"
        )
    source = find(config.model)
    network = read_config(source, config.model)
    # The snapshot of a model on the Hub is named after its commit.
    identity = f"{config.model}@{source.name}" if is_hub_name(config.model) else digest(source, "model")
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


def find(model: str) -> Path:
    """The folder of a model, downloaded if it is a name on the Hub.

    Raises:
        UserError: no such folder, and the download failed.
    """
    from huggingface_hub import snapshot_download

    from training.model_io.model_folder import GENERATION_CONFIG, TEKKEN, TOKENIZER_FILES

    if not is_hub_name(model):
        if not Path(model).exists():
            raise UserError(f"'model': no such file or folder: {model}")
        return Path(model)
    wanted = ["config.json", GENERATION_CONFIG, "model*.safetensors", "model.safetensors.index.json"]
    wanted += [*TOKENIZER_FILES, TEKKEN]
    try:
        return Path(snapshot_download(model, allow_patterns=wanted))
    except (OSError, ValueError) as error:  # the Hub's own errors are of these kinds
        reason = one_line(error)
        raise UserError(
            f"'model': there is no folder {model}, and the download from the Hub failed ({reason})"
        ) from None


def read_config(source: Path, model: str) -> "PreTrainedConfig":
    """The configuration of a stock model that can be imported.

    Args:
        source: its folder.
        model: its name in the recipe, for errors.

    Raises:
        UserError: not a model, another architecture, or an option that our class lacks.
    """
    from transformers import AutoConfig

    from modeling_scratch.conversion_scratch import ARCHITECTURES, scratch_config

    file = source / "config.json"
    if is_adapter(source):
        raise UserError(f"'model': {describe_adapter(source)}")
    if not file.is_file():
        raise UserError(f"'model': {model} holds no model (no config.json)")
    try:
        kind = read_json(file, {"model_type?": str}).get("model_type")
    except ValueError:
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
    except Exception as error:  # of any class, where a value is not what transformers expects
        cause = one_line(error.__cause__ or error)
        raise UserError(f"'model': {model}: config.json: {cause}") from None
    return network
