"""The projects whose checkpoints `scratch import` reads, told apart by the names of their tensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError

from modeling_scratch import ScratchForCausalLM
from modeling_scratch.conversion_scratch import from_stock
from training.common.errors import UserError, one_line
from training.foreign import litgpt, llama2c, llms_from_scratch, mingpt, nanochat, nanogpt
from training.foreign.checkpoint import Checkpoint, numbered, read_pickled
from training.foreign.llama2c_binary import read_binary
from training.foreign.sizes import Sizes
from training.foreign.stock import StockModel

PROJECTS = (nanogpt, mingpt, llama2c, llms_from_scratch, litgpt, nanochat)  # nanoGPT before minGPT: see `matches`
_PICKLED = (b"PK", b"\x80")  # the first bytes of torch's files, new and old


def find_checkpoint(model: str) -> Path | None:
    """The file of a foreign checkpoint that a path names, itself or as its folder; None for anything else.

    Raises:
        UserError: a folder with several of them.
    """
    path = Path(model)
    if path.is_file():
        return path
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return None
    names = {project.FILE for project in PROJECTS if project.FILE}
    found = sorted(name for name in names if (path / name).is_file())
    if len(found) > 1:
        raise UserError(f"'model': {model} holds {' and '.join(found)}; give one of the files")
    return path / found[0] if found else None


def settings_beside(file: Path) -> list[Path]:
    """The files of settings that a project may have written beside a checkpoint."""
    places = (file.with_name(name) for name in (mingpt.SETTINGS, litgpt.SETTINGS))
    return [place for place in places if place.is_file()]


def read_foreign(file: Path, sizes: Sizes) -> StockModel:
    """A checkpoint of another project in transformers' layout.

    Raises:
        UserError: a file of no known project, one that is damaged or would run code, a size that it does not hold, or a
            network that no model here has.
    """
    checkpoint = _open(file)
    for project in PROJECTS:
        if project.matches(checkpoint):
            with naming(file):
                return project.read(checkpoint, sizes)
    names = checkpoint.names()
    shares = {project.NAME: names & project.KEYS for project in PROJECTS}
    nearest = max(PROJECTS, key=lambda project: len(shares[project.NAME]) / len(project.KEYS))
    shared = len(shares[nearest.NAME])
    hint = f"nearest: {nearest.NAME}, without {min(nearest.KEYS - names)}" if shared else "none comes near"
    known = ", ".join(project.NAME for project in PROJECTS if project is not nanochat)
    first = min(checkpoint.tensors)
    raise checkpoint.error(f"tensors such as {numbered(first)!r:.80} are of no known project ({known}); {hint}")


def _open(file: Path) -> Checkpoint:
    """The tensors of a file in either format.

    Raises:
        UserError: another format.
    """
    with file.open("rb") as stream:
        first = stream.read(4)
    if first.startswith(_PICKLED):
        return read_pickled(file)
    if file.suffix == ".bin":
        return read_binary(file)
    raise UserError(
        f"'model': {file} is not a checkpoint of torch.save (PyTorch), nor a .bin of llama2.c; give such a file, or a "
        "folder with config.json and safetensors"
    )


def to_scratch(checkpoint: Path, stock: StockModel) -> ScratchForCausalLM:
    """Our model of it, with equal logits.

    Raises:
        UserError: a value that no model here takes.
    """
    with naming(checkpoint):
        return from_stock(stock.config, stock.weights)


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Raise the errors of configurations, ours and transformers', with the file that holds the value."""
    try:
        yield
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise UserError(f"'model': {file}: {one_line(error.__cause__ or error)}") from None
