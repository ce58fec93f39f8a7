"""Recipes that the package ships, for paths that name none of the current folder."""

from pathlib import Path

RECIPES = "recipes"
PACKAGE = Path(__file__).parents[1]  # holds recipes/: in the repository as a link, installed as a copy


def with_shipped(path: str | Path) -> Path:
    """A path as it is; or, if it names a folder in `recipes` that is not here, the same path in the shipped recipes."""
    path = Path(path)
    if path.parts[:1] != (RECIPES,) or Path(*path.parts[:2]).exists():
        return path
    shipped = PACKAGE / path
    return shipped if shipped.exists() else path
