"""Imports run downwards only: a file imports from its own room and from the rooms listed before it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up. CONTRIBUTING.md shows the same list. A room may import those before it, never those after it.
ROOMS = (
    "modeling_scratch",
    "training.common",
    "training.stages",
    "training.machine",
    "training.model_io",
    "training.foreign",
    "training.sandbox",
    "training.optim",
    "training.data",
    "training.corpus.rules",
    "training.corpus.sources",
    "training.corpus.dedup",
    "training.corpus.examples",
    "training.corpus.execution",
    "training.corpus.curation",
    "training.corpus.output",
    "training.insight",
    "training.plots",
    "training.plots.insight",
    "training.pretraining",
    "training.planner.facts",
    "training.planner",
    "training.planner.requests",
    "training.planner.recipes",
    "training.tuning.keys",
    "training.tuning",
    "training.tuning.classification",
    "training.tuning.pipeline",
    "training.chat",
    "training.serving",
    "training.eval.measures",
    "training.eval.harness",
    "training.eval.results",
    "training.arena",
    "training.web",
    "training.attention_page",
    "training.publishing",
    "training.engines",
    "training.browser_page",
    "training.watching",
    "training.commands",
    "training.cli",
    "training.__main__",
)
FILES = [path for folder in ("modeling_scratch", "training") for path in sorted((ROOT / folder).rglob("*.py"))]
# One file a command: as many as there are commands.
MOST_FILES = {"training/commands": 25}


def room_of(module: str) -> str | None:
    """The room of a dotted module name, the innermost one; None for what is not ours."""
    return max((room for room in ROOMS if module == room or module.startswith(room + ".")), key=len, default=None)


def imports_of(path: Path) -> set[str]:
    """Dotted names of all that a file imports, inside functions too, `from package import module` resolved."""
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [package.rsplit(".", node.level - 1)[0] if node.level else "", node.module]))
            found.add(base)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path):
    own = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    if own is None:  # `training` and the folders of rooms: packages without code
        assert path.name == "__init__.py" and not path.read_text().strip()
        return
    rooms = {room_of(module) for module in imports_of(path)} - {None, own}
    upward = sorted(room for room in rooms if ROOMS.index(room) > ROOMS.index(own))
    assert not upward, f"{own} must not import {', '.join(upward)}, which stand above it"


def test_commands_do_not_import_each_other():
    """`scratch run` starts the others as processes."""
    for path in (ROOT / "training" / "commands").glob("*.py"):
        own = f"training.commands.{path.stem}"
        others = {module for module in imports_of(path) if module.startswith("training.commands.")}
        assert not {module for module in others if not module.startswith(own)}, path.name


def test_the_list_of_rooms_is_complete():
    folders = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in FILES if path.name != "__init__.py"}
    assert folders - {"training"} == {room for room in ROOMS if (ROOT / room.replace(".", "/")).is_dir()}


def test_no_folder_is_crowded():
    folders = {path.parent for path in FILES}
    for folder in folders:
        name = str(folder.relative_to(ROOT))
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= MOST_FILES.get(name, 15), f"{name} has {len(files)} files; divide it"
