"""Folder with a page that runs a model in the browser, and the part of a model card about it."""

from pathlib import Path

import gguf
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.browser_page.page import LICENSES, PAGE, BrowserModel, write_page, write_single_page
from training.common.errors import UserError
from training.engines.gguf_agreement import Agreement
from training.engines.gguf_file import PRECISIONS
from training.engines.gguf_folder import agreement_section, write_gguf_file
from training.publishing.model_card import EngineFile

LIMIT = 300_000_000  # bytes of a GGUF file inside a page: a browser's longest text has about 500 MB


def check_size(model: PreTrainedModel, precision: str) -> None:
    """Reject a model that is too large for a page in one file.

    Raises:
        UserError: says how large it is.
    """
    weights, size = gguf.GGML_QUANT_SIZES[PRECISIONS[precision][0]]
    needed = model.num_parameters() * size / weights
    if needed > LIMIT:
        raise UserError(
            f"'single_file': the model takes {needed / 1e6:,.0f} MB, and a page in one file holds at most "
            f"{LIMIT / 1e6:,.0f} MB; leave it out to write a folder, or choose a smaller precision"
        )


def write_page_folder(
    folder: Path,
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    precision: str,
    chat: bool,
    runtime: dict[str, bytes],
    single_file: bool,
) -> tuple[str, list[str]]:
    """Write the page with engine, model and licences: as files beside it, or inside it.

    Args:
        name, model, tokenizer, precision, chat: see `write_gguf_file`.
        runtime: see `open_runtime`.

    Returns:
        The name of the page, and those of all files as a person reads them.
    """
    file = folder / write_gguf_file(folder, name, model, tokenizer, precision, chat)[0]
    template = tokenizer.chat_template if chat else None
    shown = BrowserModel(name, file, model.generation_config, model.config.max_position_embeddings, template)
    if single_file:
        write_single_page(folder / f"{name}.html", shown, runtime)
        file.unlink()
        return f"{name}.html", [f"{name}.html"]
    write_page(folder, shown, runtime)
    return PAGE, [PAGE, "engine", file.name, LICENSES]


def describe_page(page: str, precision: str, agreement: Agreement | None) -> EngineFile:
    """The parts of a model card that are about the page."""
    nature = f"`{page}` runs it in the browser, with matrices in {precision.upper()}"
    command = "python -m http.server  # and open http://localhost:8000"
    if page != PAGE:
        nature, command = f"{nature}; the file holds everything it needs", f"xdg-open {page}  # or a double click"
    return EngineFile("wllama", "gguf", nature, command, agreement_section(precision, agreement))
