"""Model folders as Hugging Face has them: weights, configuration, generation settings, tokenizer and code."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, logging

from modeling_scratch.tokenization_base import use_version_4_names
from training.common.errors import UserError, one_line
from training.common.hub_names import is_hub_name
from training.common.json_files import read_json
from training.model_io.context_length import context_length

GENERATION_CONFIG = "generation_config.json"
SENTENCEPIECE = "tokenizer.model"  # or tiktoken's format
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    # tokenizers from other sources may also, or only, have these
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    SENTENCEPIECE,
)
TEKKEN = "tekken.json"  # Mistral's format


def special_token_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int | None]:
    """The ids that go into a model's configuration. The end-of-text token also opens an unprompted text."""
    return {
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def generation_config(tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> GenerationConfig:
    """Generation settings: common sampling defaults; generation ends at the end of the text or of the assistant's turn.

    Args:
        vocab_size: rows of the model's embedding. Those beyond the tokenizer (from `tokenizer_size` on) have no token
            and are never drawn.
    """
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    ids = special_token_ids(tokenizer)
    if end_of_turn is not None and end_of_turn != tokenizer.unk_token_id:
        ids["eos_token_id"] = [tokenizer.eos_token_id, end_of_turn]
    phantoms = list(range(len(tokenizer), vocab_size)) or None
    sampling = {"do_sample": True, "temperature": 0.8, "top_k": 50, "max_new_tokens": 256}
    return GenerationConfig(**ids, **sampling, suppress_tokens=phantoms, tokenizer_size=len(tokenizer))


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Turn off transformers' progress bars, which would break ours, inside this context."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence transformers' table of new or unused weights inside this context, where it is expected or reported."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with no_progress_bars():
            yield
    finally:
        logging.set_verbosity(verbosity)


def save_model(
    model: PreTrainedModel,
    source: str | Path,
    folder: str | Path,
    state_dict: dict[str, Any] | None = None,
    revision: str = "main",
) -> None:
    """Write `folder` so that stock transformers opens it, with `trust_remote_code=True` if the model is of our class.

    Args:
        model: the unwrapped model.
        source: folder or Hub name of the model it was trained from, or of its tokenizer. The tokenizer's files are
            copied, with the model's context in their settings. If the model generates, the generation settings are
            copied byte for byte if it has them; otherwise they are made for our chat template.
        state_dict: the gathered weights, when the model's own are sharded.
        revision: of a name on the Hub.

    Raises:
        UserError: a name on the Hub of which no tokenizer was opened on this machine.
    """
    source, folder = _folder_of(source, revision), Path(folder)
    carried = model.can_generate() and (source / GENERATION_CONFIG).is_file()
    if carried:
        model.generation_config = GenerationConfig()
    elif model.can_generate() and any((source / name).is_file() for name in TOKENIZER_FILES):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(source)
        model.generation_config = generation_config(tokenizer, model.config.vocab_size)
    write_model(model, folder, state_dict)
    if carried:
        shutil.copyfile(source / GENERATION_CONFIG, folder / GENERATION_CONFIG)
    copy_tokenizer(source, folder, model)


def _folder_of(source: str | Path, revision: str) -> Path:
    """The folder of a model; for a name on the Hub, the one in the cache, with the files that were opened from it."""
    name = str(source)
    if not is_hub_name(name):
        return Path(source)
    for file in TOKENIZER_FILES:
        cached = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(cached, str):  # also if the Hub has changed since, or cannot be reached
            return Path(cached).parent
    raise UserError(f"{name}: no tokenizer in the cache of the Hub; open it with AutoTokenizer.from_pretrained first")


def write_model(model: PreTrainedModel, folder: str | Path, state_dict: dict[str, Any] | None = None) -> None:
    """Write weights, configuration, generation settings and, for our own classes, code."""
    model.config.use_cache = True  # trainers switch it off, and it would be saved that way
    with no_progress_bars():
        model.save_pretrained(folder, state_dict=state_dict)


def copy_tokenizer(source: str | Path, folder: str | Path, model: PreTrainedModel) -> list[str]:
    """Copy the tokenizer's files that are there, and fit their settings to the model. Returns their names."""
    found = [name for name in TOKENIZER_FILES if (Path(source) / name).is_file()]
    for name in found:
        shutil.copyfile(Path(source) / name, Path(folder) / name)
    if found:
        _fit_tokenizer(folder, model)
    return found


def name_tokenizer_class(source: Path, folder: Path) -> None:
    """Name the tokenizer's class in its settings, where a folder leaves it to the kind of model, as GPT-2's does."""
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if "tokenizer_class" not in settings:
        set_tokenizer_options(folder, tokenizer_class=type(AutoTokenizer.from_pretrained(source)).__name__)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: str | Path, model: PreTrainedModel) -> None:
    """Write a tokenizer that was changed since its files were read: its special tokens, or its chat template.

    Args:
        folder: of the model, whose generation then ends at the tokenizer's end of text too, and may draw new tokens.
    """
    tokenizer.save_pretrained(folder)
    use_version_4_names(folder)
    _fit_tokenizer(folder, model)
    if not model.can_generate():
        return
    settings = GenerationConfig.from_pretrained(folder)
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    if tokenizer.eos_token_id not in ends:
        settings.eos_token_id = [tokenizer.eos_token_id, *(end for end in ends if end is not None)]
    settings.pad_token_id = tokenizer.pad_token_id
    size = getattr(settings, "tokenizer_size", len(tokenizer))
    own = {token for token in settings.suppress_tokens or () if token < size}
    phantoms = range(len(tokenizer), model.config.get_text_config().vocab_size)
    settings.suppress_tokens = sorted(own.union(phantoms)) or None
    settings.tokenizer_size = len(tokenizer)
    settings.save_pretrained(folder)


def _fit_tokenizer(folder: str | Path, model: PreTrainedModel) -> None:
    """Write into the tokenizer's settings what programs read there of the model: its context, and its side of padding.

    Generation continues a sequence at its last position, which must not be padding. In all other uses, padding on the
    right leaves every token at its position.
    """
    settings: dict[str, Any] = {"padding_side": "left" if model.can_generate() else "right"}
    context = context_length(model.config)
    if context is not None:
        settings["model_max_length"] = context
    set_tokenizer_options(folder, **settings)


def set_tokenizer_options(folder: str | Path, **options: Any) -> None:
    """Change settings in `tokenizer_config.json`."""
    file = Path(folder) / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if settings != settings | options:
        file.write_text(json.dumps(settings | options, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def name_bos_token(folder: str | Path) -> None:
    """Write the token that opens a text into the tokenizer's settings, where engines outside transformers look."""
    tokenizer, bos = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder).bos_token_id
    if tokenizer.bos_token is None and bos is not None:
        set_tokenizer_options(folder, bos_token=tokenizer.convert_ids_to_tokens(bos))


def check_generation_config(folder: str | Path, key: str) -> None:
    """Reject generation settings that transformers cannot read: it would load the model with defaults, and say nothing.

    Args:
        key: of the recipe that names the folder.

    Raises:
        UserError: names the file.
    """
    file = Path(folder) / GENERATION_CONFIG
    if not file.is_file():
        return
    try:
        GenerationConfig.from_pretrained(folder)
    except Exception as error:  # of any class, where the file holds something else than transformers expects
        raise UserError(
            f"'{key}': {file} is damaged ({one_line(error)}); restore it, or delete it to use the default settings"
        ) from None


def read_weights(folder: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a model directory, from its safetensors file or files.

    Raises:
        UserError: no such file, or one that is damaged.
    """
    folder = Path(folder)
    names = [SAFE_WEIGHTS_NAME]
    if not (folder / SAFE_WEIGHTS_NAME).is_file() and (folder / SAFE_WEIGHTS_INDEX_NAME).is_file():
        try:
            index = read_json(folder / SAFE_WEIGHTS_INDEX_NAME, {"weight_map": {str: str}})
            names = sorted(set(index["weight_map"].values()))
        except ValueError:
            raise UserError(f"{folder / SAFE_WEIGHTS_INDEX_NAME} is damaged; download or copy it again") from None
    weights: dict[str, torch.Tensor] = {}
    for name in names:
        if not (folder / name).is_file():
            pickled = [file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern)]
            beside = f" ({min(pickled)} is not read: unpickling runs code)" if pickled else ""
            raise UserError(f"{folder}: no {name}{beside}; weights are taken from safetensors files")
        try:
            weights |= load_file(folder / name)
        except SafetensorError as error:
            raise UserError(f"{folder / name} is damaged ({error}); download or copy it again") from None
    return weights


def weights_digest(folder: str | Path) -> str:
    """A SHA-256 of a model's tensors by name, however files divide them. Raises what `read_weights` raises."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(read_weights(folder).items()):
        hasher.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return hasher.hexdigest()
