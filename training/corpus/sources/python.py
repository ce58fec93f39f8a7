"""The Python source installed on this machine: the standard library and site-packages."""

import sysconfig
import tokenize
from dataclasses import dataclass
from pathlib import Path

# Files that installers and administrators write into site-packages: they name folders of this machine, not code.
_LOCAL_MODULES = ("__editable__", "_sysconfigdata", "sitecustomize", "usercustomize")
_TEST_FOLDERS = {"test", "tests", "idle_test", "_test", "testdata"}
_VENDOR_FOLDERS = {"_vendor", "_vendored", "vendor", "vendored", "extern", "externals", "_distutils"}


@dataclass(frozen=True)
class PythonFile:
    """A file of the standard library or of an installed package, not read yet."""

    id: str
    group: str
    path: Path
    size: int


def python_files() -> list[PythonFile]:
    """Python files of the running interpreter's standard library and site-packages; never the working directory."""
    roots = [("stdlib", Path(sysconfig.get_path("stdlib")))]
    site_packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    roots += [("site", Path(folder)) for folder in sorted(site_packages)]
    files = []
    for kind, root in roots:
        for path in root.rglob("*.py"):
            parts = path.relative_to(root).parts
            # A system Python keeps its site-packages inside the standard library's folder.
            if parts[0] in ("site-packages", "dist-packages") or parts[0].startswith(_LOCAL_MODULES):
                continue
            package = parts[0].removesuffix(".py")
            files.append(
                PythonFile(
                    id="/".join((kind, *parts)),
                    group=f"stdlib:{package}" if kind == "stdlib" else package,
                    path=path,
                    size=path.stat().st_size,
                )
            )
    return files


def path_reason(identity: str) -> str | None:
    """The reason to skip a Python file by its name alone, before it is read; None for a file to read."""
    *folders, name = identity.split("/")
    if _TEST_FOLDERS.intersection(folders) or name.startswith("test_") or name == "conftest.py":
        return "test"
    # Copies of other packages: their rewritten imports hide them from deduplication, so they would leak.
    if _VENDOR_FOLDERS.intersection(folders):
        return "vendored copy"
    return None


def read_python(path: Path) -> str | None:
    """A source file in the encoding it declares (PEP 263), with newlines as `\\n`; None if it does not decode."""
    try:
        with tokenize.open(path) as stream:
            return stream.read()
    except (SyntaxError, UnicodeError):
        return None
