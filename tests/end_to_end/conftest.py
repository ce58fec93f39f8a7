import sys

import pytest

# Python imports a module of this name when it starts.
HIDE = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("modeling_scratch", "training"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
"""


@pytest.fixture(scope="session")
def without_package(terminal, tmp_path_factory) -> dict[str, str]:
    """The environment of a machine on which this package is not installed, for programs and all that they start."""
    folder = tmp_path_factory.mktemp("hide")
    (folder / "sitecustomize.py").write_text(HIDE)
    environment = {"PYTHONPATH": str(folder)}
    for package in ("modeling_scratch", "training"):
        done = terminal.run([sys.executable, "-c", f"import {package}"], folder, fails=True, **environment)
        assert f"ModuleNotFoundError: {package}" in done.stderr
    return environment
