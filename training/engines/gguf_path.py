"""GGUF file that a path names, recognised without the package that reads it."""

from pathlib import Path

from training.common.errors import UserError

_MAGIC = b"GGUF"


def find_gguf(model: str) -> Path | None:
    """The file that a path names, itself or as its folder; None for anything else.

    Raises:
        UserError: a folder with several of them, or a file that only has the name of one.
    """
    path = Path(model)
    if path.is_file():
        with path.open("rb") as stream:
            found = stream.read(len(_MAGIC)) == _MAGIC
        if not found and path.suffix == ".gguf":
            raise UserError(f"'model': {path} is not a GGUF file: it does not begin with GGUF; copy it again")
        return path if found else None
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        raise UserError(f"'model': {model} holds {files[0].name} and {files[1].name}; give one of the files")
    return files[0] if files else None
