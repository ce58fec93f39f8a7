"""Whether a recipe means a folder on this machine or a repository on the Hub: decided here, and only here."""

import re
from pathlib import Path

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def is_hub_name(path: str) -> bool:
    """Whether `path` means a repository on the Hub: it is written `owner/name`.

    It means a folder if something lies there on this machine, if `owner` is a folder here (then `name` is missing in
    it), or if `owner` is `runs`, where the recipes write their output.
    """
    if not _HUB_NAME.fullmatch(path) or Path(path).exists():
        return False
    owner = Path(path).parent
    return not (owner.is_dir() or owner == Path("runs"))
