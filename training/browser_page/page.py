"""The browser page: one static page that runs a model in the browser, with no server behind it.

It is the page of `scratch chat --web` with an engine in the place of the server: wllama, and the model as a GGUF file.
They lie beside the page, in a folder for any static host, or inside it, in one file that opens by a double click. A
Content-Security-Policy keeps the page from reaching another host.
"""

import base64
import html
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from modeling_scratch.tokenization_base import CHAT_TEMPLATE
from training.browser_page.runtime import COMPAT_WASM, COMPAT_WORKER, MODULE, WASM
from training.common.files import write_whole
from training.common.progress import progress_bar
from training.engines.sampling import sampling_settings
from training.web.inline import bundle, content_policy, fill, read_static

STYLES = ("training.web/base.css", "training.web/chat.css", "training.browser_page/page.css")
# In the order in which they are read: each uses those before it.
SCRIPTS = (
    *(f"training.web/{name}.js" for name in ("dom", "markdown", "settings", "tokens")),
    *(f"training.browser_page/{name}.js" for name in ("engine", "stream")),
    "training.web/chat.js",
)
PAGE, ENGINE, LICENSES = "index.html", "engine", "LICENSES.txt"

# wllama's module, and what takes its place in a page that is opened as a file, where no browser loads such a worker.
_WORKER, _CLASSIC_WORKER = b'type:"module"', b'type:"classic"'
# A template that knows tools makes llama.cpp take whitespace off the beginning of an answer. This one renders messages
# of text as ours does.
_CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# wllama's completions of a plain text fail at the first half character, and those of messages do not.
_COMPLETION = "{{ messages[0]['content'] }}"
_BLOCK = 2**20  # bytes
_MODEL = "model.gguf"


@dataclass(frozen=True)
class BrowserModel:
    """The model of a page.

    Attributes:
        name: shown as the title.
        gguf: its file.
        generation: sampling settings.
        context: tokens.
        chat_template: None for a model that does not answer messages; the page then continues a text.
    """

    name: str
    gguf: Path
    generation: GenerationConfig
    context: int
    chat_template: str | None


def write_page(folder: Path, model: BrowserModel, runtime: dict[str, bytes]) -> None:
    """Write the page, the engine and the licences beside the GGUF file.

    Args:
        folder: holds the GGUF file.
        runtime: see `open_runtime`.
    """
    (folder / ENGINE).mkdir(exist_ok=True)
    for name, content in runtime.items():
        (folder / ENGINE / name).write_bytes(content)
    write_whole(folder / LICENSES, read_static(f"training.browser_page/{LICENSES}"))
    places = {name: f"{ENGINE}/{name}" for name in runtime} | {_MODEL: model.gguf.name}
    before, after = _halves(model, _files(places), sources="'self'", connect="'self' blob:")
    write_whole(folder / PAGE, before + after)


def write_single_page(page: Path, model: BrowserModel, runtime: dict[str, bytes]) -> None:
    """Write the page with engine, model and licences inside."""
    contents = runtime | {MODULE: runtime[MODULE].replace(_WORKER, _CLASSIC_WORKER), _MODEL: model.gguf.read_bytes()}
    places = {name: f"#{name.replace('.', '_')}" for name in contents}
    before, after = _halves(model, _files(places), sources="data:", connect="data: blob:")
    size = sum(map(len, contents.values()))
    with (
        page.open("w", encoding="utf-8", newline="\n") as stream,
        progress_bar(total=size, desc=page.name, unit="B", unit_scale=True, leave=False) as bar,
    ):
        stream.write(before)
        for name, content in contents.items():
            stream.write(f'<script type="application/octet-stream" id="{places[name].removeprefix("#")}">')
            for text in _packed(content):
                stream.write(text)
            bar.update(len(content))
            stream.write("</script>\n")
        stream.write(after)


def _files(places: dict[str, str]) -> dict[str, str]:
    """The places of the files by the names that static/engine.js has for them."""
    names = {"module": MODULE, "wasm": WASM, "compat_worker": COMPAT_WORKER, "compat_wasm": COMPAT_WASM}
    return {key: places[name] for key, name in (names | {"model": _MODEL}).items()}


def _halves(model: BrowserModel, files: dict[str, str], sources: str, connect: str) -> tuple[str, str]:
    """The page before and after the place of its blocks.

    Args:
        files: places of the files.
        sources, connect: where the Content-Security-Policy lets scripts and other data come from.
    """
    style, script = "".join(map(read_static, STYLES)), bundle(SCRIPTS)
    chats = model.chat_template is not None
    values = {
        "title": html.escape(model.name),
        "style": style,
        "script": script,
        "policy": content_policy(
            style, script, f"{sources} blob: 'wasm-unsafe-eval'", f"worker-src blob:; connect-src {connect}; "
        ),
        "new": "New conversation" if chats else "New text",
        "label": "Message" if chats else "Text",
        "about": json.dumps(_about(model, files)).replace("<", "\\u003c"),  # ends no script element
        "licences": html.escape(read_static(f"training.browser_page/{LICENSES}")),
    }
    before, after = read_static("training.browser_page/page.html").split("{{blocks}}\n")
    return fill(before, values), fill(after, values)


def _about(model: BrowserModel, files: dict[str, str]) -> dict[str, Any]:
    """The data that the page reads: files, the model as chat.js asks for it, and settings of wllama.

    With a cache in F32 and no flash attention, llama.cpp repeats the arithmetic of the original.
    """
    chats = model.chat_template is not None
    load = {
        "n_ctx": model.context,
        "n_parallel": 1,
        "n_gpu_layers": 0,
        "cache_type_k": "f32",
        "cache_type_v": "f32",
        "flash_attn": False,
        "jinja": True,
        "reasoning_format": "none",
    }
    if not chats:
        load["chat_template"] = _COMPLETION
    elif model.chat_template == CHAT_TEMPLATE:
        load["chat_template"] = _CHAT
    length = model.generation.max_new_tokens or model.context
    return {
        "files": files,
        "bytes": model.gguf.stat().st_size,
        "context": model.context,
        "load": load,
        "page": {
            "model": model.name,
            "template": chats,
            "chats": chats,
            "settings": sampling_settings(model.generation) | {"max_tokens": length},
        },
    }


def _packed(content: bytes) -> Iterator[str]:
    """Base64 of gzip, in parts."""
    packer, waiting = zlib.compressobj(wbits=31), b""
    for start in range(0, len(content), _BLOCK):
        waiting += packer.compress(content[start : start + _BLOCK])
        whole = len(waiting) // 3 * 3
        yield base64.b64encode(waiting[:whole]).decode()
        waiting = waiting[whole:]
    yield base64.b64encode(waiting + packer.flush()).decode()
