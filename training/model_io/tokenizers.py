"""Open tokenizers, with errors that name the damaged file, and check their vocabulary against a model's."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

import modeling_scratch  # noqa: F401  (registers our classes with the Auto classes)
from training.common.errors import UserError, one_line
from training.common.hub_names import is_hub_name
from training.model_io.model_folder import SENTENCEPIECE, TEKKEN, TOKENIZER_FILES, quiet_loading
from training.stages.provenance import digest, read_provenance, written_by

UNDECODED = "\ufffd"  # in decoded text, for bytes that are not, or not yet, a character


class UnknownCharacter(UserError, ValueError):
    """A character that a tokenizer without a token for unknown characters does not have."""


def has_tokenizer(folder: str | Path) -> bool:
    """Whether the folder of a model also holds a tokenizer."""
    return any((Path(folder) / name).is_file() for name in (*TOKENIZER_FILES, TEKKEN))


def open_tokenizer(name: str | Path, key: str, revision: str = "main") -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, or of a name on the Hub.

    Args:
        key: of the recipe, or the flag, that named it.
        revision: of a name on the Hub.

    Raises:
        UserError: one of its files is damaged, there is no tokenizer, or it is not a fast one.
    """
    folder = Path(name)
    readers = {
        "tokenizer.json": lambda file: Tokenizer.from_file(str(file)),
        "tokenizer_config.json": lambda file: dict(json.loads(file.read_text(encoding="utf-8"))),
        "chat_template.jinja": lambda file: file.read_text(encoding="utf-8"),
    }
    for file, read in readers.items():
        if (folder / file).is_file():
            try:
                read(folder / file)
            except Exception as error:  # tokenizers raises no narrower class
                raise UserError(
                    f"'{key}': {folder / file} is damaged ({one_line(error)}); "
                    f"restore it, or delete {folder} and run its stage again"
                ) from None
    try:
        with quiet_loading():
            # Not Mistral's own class, which is preferred where mistral-common is installed and is not a fast one.
            tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, mistral_format=False)
            tokenizer("")  # compares settings, such as model_max_length, that may not be numbers
    except Exception as error:  # of any class, where a file holds something else than transformers expects
        unconverted = _find_unconverted(name, revision)
        if unconverted:
            file, package = unconverted
            raise UserError(
                f"'{key}': {name} has {file} but no tokenizer.json; write one with `pip install {package}` and, in "
                "Python, AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
            ) from None
        raise UserError(f"'{key}': no tokenizer at {name} ({one_line(error)})") from None
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise UserError(
            f"'{key}': {name} has no fast tokenizer (it opens as {type(tokenizer).__name__}); add its tokenizer.json"
        )
    # Do not warn of texts beyond the context: every stage splits, truncates or rejects them itself.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    return tokenizer


def _find_unconverted(name: str | Path, revision: str) -> tuple[str, str] | None:
    """A tokenizer's file in a format other than `tokenizer.json`, and the package that converts it."""
    for file in (TEKKEN, SENTENCEPIECE):
        cached = try_to_load_from_cache(str(name), file, revision=revision) if is_hub_name(str(name)) else None
        path = Path(cached) if isinstance(cached, str) else Path(name) / file
        if path.is_file() and file == TEKKEN:
            return file, "mistral-common"
        if path.is_file():
            with path.open("rb") as stream:
                first = stream.readline(200)
            # Llama 3 has tiktoken's format under the same name: a token in base64 and its number on each line.
            return file, "tiktoken" if re.fullmatch(rb"[\w+/=]+ \d+\r?\n", first) else "sentencepiece protobuf"
    return None


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, name: str | Path, key: str) -> None:
    """Reject a model that has no embedding for some token. More embeddings than tokens are fine.

    Raises:
        UserError: the tokenizer is larger than the model's embedding, or is not the one that the model was saved with.
    """
    tokens, embedded = len(tokenizer), config.get_text_config().vocab_size
    if embedded < tokens:
        raise UserError(
            f"'{key}': {name}: the tokenizer has {tokens} tokens but the model has {embedded} embeddings (vocab_size); "
            f"restore the tokenizer it was trained with, or enlarge it with model.resize_token_embeddings({tokens})"
        )
    noted = read_provenance(name).get("tokenizer_sha256")
    if noted and noted != digest(Path(name) / "tokenizer.json", key):
        raise UserError(
            f"'{key}': {name}/tokenizer.json is not the one that {written_by(name)} wrote; restore that file, because "
            "the model was trained with its vocabulary"
        )


def open_model_tokenizer(folder: str | Path, key: str) -> PreTrainedTokenizerBase:
    """The tokenizer in the folder of a model that has an embedding for each token.

    Raises:
        UserError: the tokenizer or the model's configuration is damaged, or they do not belong together.
    """
    tokenizer = open_tokenizer(folder, key)
    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:  # as above
        raise UserError(f"'{key}': {folder}/config.json cannot be read ({one_line(error)})") from None
    check_vocabulary(tokenizer, config, folder, key)
    return tokenizer


def unknown_token_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of the token that stands only for unknown characters; None without one, as in GPT-2, whose `unk_token` is
    its end-of-text token."""
    others = (tokenizer.eos_token_id, tokenizer.pad_token_id)
    return None if tokenizer.unk_token_id in others else tokenizer.unk_token_id


@contextmanager
def naming_unknown(tokenizer: PreTrainedTokenizerBase, texts: str | Iterable[str]) -> Iterator[None]:
    """Raise the error of `tokenizers` about a character that is not in the vocabulary as `UnknownCharacter`.

    Args:
        texts: those that are encoded, as far as they are known.
    """
    try:
        yield
    except Exception as error:
        if type(error) is not Exception:  # tokenizers raises no narrower class
            raise
        known = tokenizer.get_vocab()
        lost = next((repr(character) for text in texts for character in text if character not in known), "a character")
        raise UnknownCharacter(
            f"the tokenizer in {tokenizer.name_or_path} has no token for {lost}; leave it out, or train the tokenizer "
            "again, which gives it a token for unknown characters"
        ) from None
