"""What a reader opens first is documented: modules, recipe keys, dataclasses, and the `main` of each command."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [path for folder in ("modeling_scratch", "training") for path in sorted((ROOT / folder).rglob("*.py"))]
# A first line that begins so hides its subject in the name above.
HIDES_ITS_SUBJECT = ("Of ", "What ", "How ", "Where ", "Which ")


def documented(tree: ast.Module) -> list[ast.AST]:
    """The definitions that need a docstring."""
    return [
        node
        for node in ast.walk(tree)
        if (isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list))
        or (isinstance(node, ast.FunctionDef) and node.name == "main" and len(node.args.args) == 1)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_is_documented(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not tree.body:
        return
    assert ast.get_docstring(tree), "the module has no docstring"
    for node in documented(tree):
        assert ast.get_docstring(node), f"{node.name} has no docstring"
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (text := ast.get_docstring(node)):
            name = getattr(node, "name", "the module")
            assert not text.startswith(HIDES_ITS_SUBJECT), f"{name}: {text.splitlines()[0]}"
