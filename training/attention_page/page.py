"""The attention page: one HTML file that shows how a run's attention formed, for readers without this package.

    page = write_page(Record.open("RUN/insight"), Path("attention.html"), "quickstart")
    page.path, page.size, page.left_out

The file opens by a double click and requests nothing: styles, scripts and the packed record are inside. It shows the
maps of all heads by step, one head with its tokens, Q, K and V with the arithmetic of a cell, measures of all heads
through training, and the maps as a stack. What does not fit into `limit` bytes is left out, and named in the page.
"""

import base64
import hashlib
import html
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from training.attention_page.packing import pack
from training.common.files import write_whole
from training.insight.record import Record, Vectors

LIMIT = 3_000_000  # bytes
STYLES = ("training.web/base.css", "training.attention_page/page.css")
# In the order in which they are read: each uses those before it.
SCRIPTS = (
    "training.web/dom.js",
    *(f"training.attention_page/{name}.js" for name in ("data", "colours", "state", "canvas", "arithmetic")),
    *(f"training.attention_page/{name}.js" for name in ("controls", "grid", "heatmap", "product")),
    *(f"training.attention_page/{name}.js" for name in ("scatter", "lines", "cube", "main")),
)
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./([\w.]+)";', re.MULTILINE)
_EXPORT = re.compile(r"^export (?:async )?(?:const|function|class) (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """A page that was written.

    Attributes:
        size: bytes.
        left_out: a sentence for each kind of thing that did not fit.
    """

    path: Path
    size: int
    left_out: list[str]


def write_page(record: Record, path: Path, title: str, last: Vectors | None = None, limit: int = LIMIT) -> Page:
    """Write the page of a record, whole or not at all.

    Args:
        title: such as the name of the run.
        last: queries, keys and values of more heads at the last step, the most interesting first.
        limit: bytes of the file. A page with a single map is written even if it is larger.
    """
    style, script = "".join(map(_static, STYLES)), _bundle(SCRIPTS)
    values = {"title": html.escape(title), "style": style, "script": script, "policy": _policy(style, script)}
    template = _static("training.attention_page/page.html")
    packed = pack(record, limit - len(_fill(template, values).encode()), last)
    text = _fill(template, values | packed.blocks)
    write_whole(path, text)
    return Page(path, len(text.encode()), packed.left_out)


def _static(name: str) -> str:
    package, file = name.split("/")
    return (files(package) / "static" / file).read_text(encoding="utf-8")


def _bundle(names: tuple[str, ...]) -> str:
    """Modules as one script: each in a function of its own that returns what it exports."""
    parts = ["const modules = {};"]
    for name in names:
        text = _static(name)
        exported = ", ".join(_EXPORT.findall(text))
        body = _EXPORT.sub(lambda match: match[0].removeprefix("export "), text)
        body = _IMPORT.sub(lambda match: f'const {match[1]} = modules["{match[2]}"];', body)
        parts.append(f'modules["{name.split("/")[1]}"] = (() => {{\n{body}return {{ {exported} }};\n}})();')
    return "\n".join(parts) + "\n"


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy: this style and this script run, nothing else, and nothing is requested."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    policy = "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; "
    return policy.format(*hashes) + "base-uri 'none'; form-action 'none'"


def _fill(template: str, values: dict[str, str]) -> str:
    """The template with its `{{names}}` replaced, by nothing where there is no value."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values.get(match[1], ""), template)
