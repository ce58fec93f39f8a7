"""The attention page: one HTML file that shows how a run's attention formed, for readers without this package.

    page = write_page(Record.open("RUN/insight"), Path("attention.html"), "quickstart")
    page.path, page.size, page.left_out

The file opens by a double click and requests nothing: styles, scripts and the packed record are inside. It shows the
maps of all heads by step, one head with its tokens, Q, K and V with the arithmetic of a cell, measures of all heads
through training, and the maps as a stack. What does not fit into `limit` bytes is left out, and named in the page.
"""

import html
from dataclasses import dataclass
from pathlib import Path

from training.attention_page.packing import pack
from training.common.files import write_whole
from training.insight.record import Record, Vectors
from training.web.inline import bundle, content_policy, fill, read_static

LIMIT = 3_000_000  # bytes
STYLES = ("training.web/base.css", "training.attention_page/page.css")
# In the order in which they are read: each uses those before it.
SCRIPTS = (
    "training.web/dom.js",
    *(f"training.attention_page/{name}.js" for name in ("data", "colours", "state", "canvas", "arithmetic")),
    *(f"training.attention_page/{name}.js" for name in ("controls", "grid", "heatmap", "product")),
    *(f"training.attention_page/{name}.js" for name in ("scatter", "lines", "cube", "main")),
)


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
    style, script = "".join(map(read_static, STYLES)), bundle(SCRIPTS)
    values = {"title": html.escape(title), "style": style, "script": script, "policy": content_policy(style, script)}
    template = read_static("training.attention_page/page.html")
    packed = pack(record, limit - len(fill(template, values).encode()), last)
    text = fill(template, values | packed.blocks)
    write_whole(path, text)
    return Page(path, len(text.encode()), packed.left_out)
