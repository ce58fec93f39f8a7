"""Function mining: plain functions with a one-line summary from Python source, for instructions and tasks."""

import ast
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from training.corpus.sources import Document

# A module-level function after a blank line (so without decorator), and the line where it must have ended.
_START = re.compile(r"(?:\A|\n[ \t]*\n)(?=def )")
_END = re.compile(r"\n(?=[^\s#)\]}])")
_NESTED = re.compile(r"\n[ \t]+(async |def |class )")
_QUOTES = re.compile(r"\"{3}|'{3}")
_MAX_SOURCE = 4_000  # characters with the full docstring: longer functions exceed the usual token limits
_SUMMARY_LENGTH = range(12, 101)  # characters


@dataclass(frozen=True)
class Function:
    """A function in three parts; `header` and `body` keep their formatting.

    Attributes:
        header: the def line or lines, up to the colon.
        summary: the docstring's first line.
        body: the indented lines below the docstring.
    """

    name: str
    group: str
    header: str
    summary: str
    body: str

    @property
    def indent(self) -> str:
        return self.body[: len(self.body) - len(self.body.lstrip())]

    @property
    def signature(self) -> str:
        """Header and docstring: the prompt for the body."""
        return f'{self.header}\n{self.indent}"""{self.summary}"""'

    @property
    def source(self) -> str:
        return self.with_body(self.body)

    def with_body(self, body: str) -> str:
        """The function with another body."""
        return f"{self.signature}\n{body}"


def mine_functions(
    documents: Iterable[Document], seen: set[str] | None = None, accepts: Callable[[Document], bool] | None = None
) -> Iterator[Function]:
    """Plain functions: at module level, undecorated, nothing nested, a one-line summary, a body that does something.

    Repeats of a signature or of a body are left out, so that no function is seen twice.

    Args:
        seen: `fingerprints` of the functions found before; takes up those found now.
        accepts: a check of a document, made only if a function was found in it.
    """
    seen = set() if seen is None else seen
    for document in documents:
        found = list(_functions_in(document))
        if not found or (accepts and not accepts(document)):
            continue
        for function in found:
            if not seen.intersection(fingerprints(function)):
                seen.update(fingerprints(function))
                yield function


def _functions_in(document: Document) -> Iterator[Function]:
    for start in _START.finditer(document.text):
        end = _END.search(document.text, start.end())
        snippet = document.text[start.end() : end.start() if end else None]
        if len(snippet) > _MAX_SOURCE or not _QUOTES.search(snippet) or _NESTED.search(snippet):
            continue
        function = parse_function(snippet, document.group)
        if function:
            yield function


def fingerprints(function: Function) -> set[str]:
    """Signature and body without whitespace: functions that share one of them count as the same."""
    return {"".join(function.signature.split()), "".join(function.body.split())}


def parse_function(source: str, group: str) -> Function | None:
    """The function that `source` starts with; None if it is not plain."""
    node = _parse(source)
    if not isinstance(node, ast.FunctionDef) or len(node.body) < 2 or _is_trivial(node.body[1:]):
        return None
    docstring, first = node.body[:2]
    text = ast.get_docstring(node)
    if text is None or docstring.lineno == node.lineno or first.lineno == docstring.end_lineno:
        return None
    summary, *rest = text.strip().split("\n")
    if (rest and rest[0].strip()) or len(summary) not in _SUMMARY_LENGTH or '"' in summary[-1] or '"""' in summary:
        return None
    lines = source.split("\n")
    function = Function(
        name=node.name,
        group=group,
        header="\n".join(lines[: docstring.lineno - 1]).rstrip(),
        summary=summary,
        body="\n".join(lines[docstring.end_lineno : node.end_lineno]).strip("\n").rstrip(),
    )
    # Control tokens would end the answer early, and backslashes mean something else in a raw docstring.
    if "\\" in summary or "<|" in function.source:
        return None
    return function if defines(function.source, node.name) else None


def defines(source: str, name: str) -> bool:
    """Whether `source` is Python and its first statement defines the function `name`."""
    node = _parse(source)
    return isinstance(node, ast.FunctionDef) and node.name == name


def _parse(source: str) -> ast.stmt | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return next(iter(ast.parse(source).body), None)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_trivial(statements: list[ast.stmt]) -> bool:
    """Whether the body is `pass`, `...`, or a note that the function is not implemented."""
    if len(statements) > 1:
        return False
    only = statements[0]
    if isinstance(only, ast.Raise):
        return "NotImplemented" in ast.dump(only)
    return isinstance(only, ast.Pass) or (isinstance(only, ast.Expr) and isinstance(only.value, ast.Constant))
