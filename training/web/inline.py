"""Pages as one HTML file: the static files of several packages, inside a template, under a policy that admits them.

A name such as `training.web/dom.js` is a file in the folder `static` of a package. Modules import one another by
`import {...} from "./FILE";` in one line, and no two of a page have the same file name.
"""

import base64
import hashlib
import re
from importlib.resources import files

_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./([\w.]+)";', re.MULTILINE)
_EXPORT = re.compile(r"^export (?:async )?(?:const|function\*?|class) (\w+)", re.MULTILINE)


def read_static(name: str) -> str:
    """The text of a static file."""
    package, file = name.split("/")
    return (files(package) / "static" / file).read_text(encoding="utf-8")


def bundle(names: tuple[str, ...]) -> str:
    """Modules as one script: each in a function of its own that returns what it exports."""
    parts = ["const modules = {};"]
    for name in names:
        text = read_static(name)
        exported = ", ".join(_EXPORT.findall(text))
        body = _EXPORT.sub(lambda match: match[0].removeprefix("export "), text)
        body = _IMPORT.sub(lambda match: f'const {match[1]} = modules["{match[2]}"];', body)
        parts.append(f'modules["{name.split("/")[1]}"] = (() => {{\n{body}return {{ {exported} }};\n}})();')
    return "\n".join(parts) + "\n"


def content_policy(style: str, script: str, scripts: str = "", others: str = "") -> str:
    """A Content-Security-Policy: this style and this script run, nothing else, and nothing is requested.

    Args:
        scripts: sources of more scripts, such as `'self'`.
        others: more directives, each with a semicolon and a space after it.
    """
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    sources = " ".join([f"'sha256-{hashes[1]}'", *scripts.split()])
    policy = f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src {sources}; {others}img-src data:; "
    return policy + "base-uri 'none'; form-action 'none'"


def fill(template: str, values: dict[str, str]) -> str:
    """The template with its `{{names}}` replaced, by nothing where there is no value."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values.get(match[1], ""), template)
