"""Folder with a model for llama.cpp and Ollama: GGUF file, Modelfile, and the parts of a model card about them."""

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.common.tables import as_markdown
from training.engines.gguf_agreement import Agreement
from training.engines.gguf_file import write_gguf
from training.engines.gguf_vocabulary import Vocabulary, read_vocabulary
from training.engines.modelfile import NAME, modelfile
from training.publishing.model_card import EngineFile


def write_gguf_file(
    folder: Path, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, precision: str, chat: bool
) -> tuple[str, Vocabulary]:
    """Write the GGUF file.

    Args:
        name: of the model.
        model: of a stock class that llama.cpp has.
        precision: of the matrices.
        chat: whether the model answers messages.

    Returns:
        The name of the file, and its vocabulary.
    """
    vocabulary = read_vocabulary(tokenizer, model.generation_config, model.config.vocab_size, chat)
    file = f"{name}-{precision.upper()}.gguf"
    write_gguf(folder / file, model, vocabulary, precision, name)
    return file, vocabulary


def write_gguf_folder(
    folder: Path, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, precision: str, chat: bool
) -> tuple[str, Vocabulary]:
    """Write the GGUF file and the Modelfile; arguments and result are those of `write_gguf_file`."""
    file, vocabulary = write_gguf_file(folder, name, model, tokenizer, precision, chat)
    template = tokenizer.chat_template if chat else None
    text = modelfile(file, model.generation_config, model.config.max_position_embeddings, template)
    (folder / NAME).write_text(text, encoding="utf-8")
    return file, vocabulary


def describe_gguf(
    name: str, file: str, vocabulary: Vocabulary, precision: str, agreement: Agreement | None, letters: str
) -> EngineFile:
    """The parts of a model card that are about the file.

    Args:
        letters: see `unknown_letters`.
    """
    server = "llama-server" if vocabulary.chat_template else "llama-completion"
    nature = (
        f"One GGUF file for llama.cpp and Ollama, with matrices in {precision.upper()} and the tokenizer (split "
        f"pattern `{vocabulary.pre}`)"
    )
    commands = [f"{server} -m {file}", f"ollama create {name} -f {NAME}", f"ollama run {name}"]
    sections = [*agreement_section(precision, agreement), *_letters(letters)]
    return EngineFile("llama.cpp", "gguf", nature, "\n".join(commands), sections)


def _letters(letters: str) -> list[str]:
    if not letters:
        return []
    text = f"llama.cpp's Unicode tables lack {letters}. Text with these letters may have other tokens there."
    return ["## Letters that llama.cpp lacks", text]


def agreement_section(precision: str, agreement: Agreement | None) -> list[str]:
    """The section of a model card on what a precision loses; none for F32."""
    if agreement is None:
        return []
    rows = [
        ["matrices in", "perplexity", "same most likely token"],
        ["F32", f"{agreement.original_perplexity:.3f}", "100%"],
        [precision.upper(), f"{agreement.perplexity:.3f}", f"{agreement.same_token:.2%}"],
    ]
    text = (
        f"On {agreement.tokens:,} tokens of held-out text, with weights and inputs of each product of matrices rounded "
        "as llama.cpp rounds them on a processor, and a cache in F32."
    )
    return ["## Agreement with the original", as_markdown(rows).strip(), text]
