"""Names of models and datasets: a folder on this machine, or a repository on the Hub."""

import re
from pathlib import Path

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def is_hub_name(path: str) -> bool:
    """Whether `path` means a repository on the Hub: it is written `owner/name`.

    It does not if the path exists on this machine, if `owner` is a folder here (then `name` is missing in it), or if
    `owner` is `runs`, where the recipes write their output.
    """
    if not _HUB_NAME.fullmatch(path) or Path(path).exists():
        return False
    owner = Path(path).parent
    return not (owner.is_dir() or owner == Path("runs"))
