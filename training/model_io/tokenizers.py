"""Open tokenizers, with errors that name the damaged file, and check their vocabulary against a model's."""

import json
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

import modeling_scratch  # noqa: F401  (registers our classes with the Auto classes)
from training.common.errors import UserError, one_line
from training.common.stage import digest, read_provenance, written_by
from training.model_io.model_folder import TOKENIZER_FILES


def has_tokenizer(folder: str | Path) -> bool:
    """Whether the folder of a model also holds a tokenizer."""
    return any((Path(folder) / name).is_file() for name in TOKENIZER_FILES)


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
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    except Exception as error:  # of any class, where a file holds something else than transformers expects
        raise UserError(f"'{key}': no tokenizer at {name} ({one_line(error)})") from None
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise UserError(
            f"'{key}': {name} has no fast tokenizer (it opens as {type(tokenizer).__name__}); add its tokenizer.json"
        )
    # Do not warn of texts beyond the context: every stage splits, truncates or rejects them itself.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    return tokenizer


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
