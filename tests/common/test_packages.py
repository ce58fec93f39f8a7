"""Every third-party module that is imported is declared, in the extra that error messages name."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from training.common import packages
from training.common.packages import DISTRIBUTION, EXTRAS, how_to_install

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Modules whose distribution has another name.
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml", "lm_eval": "lm-eval"}
OURS = {"training", "modeling_scratch"}
# Not imported in our files: exports to other engines and Accelerate need these.
INDIRECT = {"ctranslate2", "deepspeed", "tensorboard", "trackio"}


def name_of(requirement: str) -> str:
    return re.match(r"[\w-]+", requirement).group().lower().replace("_", "-")


CORE = {name_of(requirement) for requirement in PROJECT["dependencies"]}
DECLARED = {
    extra: {name_of(requirement) for requirement in requirements}
    for extra, requirements in PROJECT["optional-dependencies"].items()
}


def imported_modules() -> dict[str, str]:
    """Third-party modules that our files import, inside functions too, with a file that does."""
    found = {}
    for path in (path for folder in sorted(OURS) for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for top in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - OURS:
                found[top] = str(path.relative_to(ROOT))
    return found


@pytest.mark.parametrize("module, path", sorted(imported_modules().items()))
def test_every_imported_module_is_declared(module, path):
    distribution = DISTRIBUTIONS.get(module, module).replace("_", "-")
    declared = DECLARED[EXTRAS[module]] if module in EXTRAS else CORE
    assert distribution in declared, f"{path} imports {module}, which pyproject.toml does not declare"


def test_the_table_names_extras_that_exist():
    assert set(EXTRAS.values()) <= DECLARED.keys()
    assert set(EXTRAS) - set(imported_modules()) <= INDIRECT


def test_dev_installs_all_that_the_tests_need():
    assert PROJECT["name"] == DISTRIBUTION
    (ours,) = [line for line in PROJECT["optional-dependencies"]["dev"] if line.startswith(f"{DISTRIBUTION}[")]
    assert {"train", "eval", "data", "cluster"} <= set(ours.partition("[")[2].rstrip("]").split(","))


def test_advice_is_for_a_checkout():
    assert how_to_install("sklearn.linear_model") == 'pip install -e ".[train]"'
    assert how_to_install("some_module") == "pip install some-module"


def test_advice_elsewhere_names_the_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "_PACKAGE", tmp_path)
    requires = ["torch>=2", 'trl<2,>=1.16; extra == "train"', 'peft; extra == "train"', 'ray; extra == "ray"']
    monkeypatch.setattr(packages.importlib.metadata, "requires", lambda name: requires)
    assert how_to_install("trl.trainer") == "pip install 'trl<2,>=1.16' peft"


def test_nobody_is_told_to_install_another_project():
    """`scratch` on the package index is not ours."""
    told = re.compile(r"pip install[^\n]{0,10}\bscratch\b")
    for folder in ("training", "modeling_scratch", "docs", "recipes", "benchmarks"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".yaml"):
                assert not told.search(path.read_text(encoding="utf-8")), path
    assert not told.search((ROOT / "README.md").read_text(encoding="utf-8"))
