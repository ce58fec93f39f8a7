"""wllama, which is llama.cpp for browsers: its files from the npm registry, downloaded once and kept.

They are too large for this package. The versions are pinned, and so are the checksums of their archives: other bytes
are never used, whether they come from a registry, from the cache or from a folder that the user names.
"""

import base64
import hashlib
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

from training.common.errors import UserError, one_line
from training.common.files import open_whole
from training.common.progress import progress_bar

VERSION = "3.13.0"
REGISTRY = "https://registry.npmjs.org"
VARIABLES = ("npm_config_registry", "NPM_CONFIG_REGISTRY")  # npm's own settings, in npm's order
SECONDS = 30  # without an answer


@dataclass(frozen=True)
class Package:
    """A package of the registry, in the version `VERSION`.

    Attributes:
        name: with its scope, such as `@wllama/wllama`.
        integrity: SHA-512 of its archive in base64, as the registry lists it.
        files: path in the archive to the name in our folder.
    """

    name: str
    integrity: str
    files: dict[str, str]

    @property
    def archive(self) -> str:
        """The name that `npm pack` gives the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{VERSION}.tgz"

    @property
    def route(self) -> str:
        """The path of the archive in a registry."""
        return f"{self.name}/-/{self.name.partition('/')[2]}-{VERSION}.tgz"


MODULE, WASM, COMPAT_WORKER, COMPAT_WASM = "wllama.js", "wllama.wasm", "compat.js", "compat.wasm"
PACKAGES = (
    Package(
        "@wllama/wllama",
        "ZvoRdQAn+E+18EvQ9qS036gudiI9rbZRBJgG/qNICPPwrA0Y6SMMdbziz/j7K/0WxcbJlhaRraVIYsnEy732NA==",
        {"package/esm/index.min.js": MODULE, "package/esm/wasm/wllama.wasm": WASM},
    ),
    Package(
        "@wllama/wllama-compat",
        "MSWwyzVXpwkstvIGzOsQ9jlRm8kY5S5J0Gdw4E6M9mXqhgO/5tj+YNfxSoqN1GvsAOwui95JPtwX3hO6VZkbzg==",
        {"package/wasm/wllama.js": COMPAT_WORKER, "package/wasm/wllama.wasm": COMPAT_WASM},
    ),
)
PACK = " ".join(["npm pack", *(f"{package.name}@{VERSION}" for package in PACKAGES)])


def open_runtime(folder: str | None = None) -> dict[str, bytes]:
    """The files that run in a browser, by name: module, WebAssembly, and both of the build for older browsers.

    Args:
        folder: holds the archives as `npm pack` writes them; None: the cache, which is filled from the registry.

    Raises:
        UserError: an archive is missing, is not the pinned one, or cannot be downloaded or kept.
    """
    return {name: content for package in PACKAGES for name, content in _unpack(_archive(package, folder), package)}


def _archive(package: Package, folder: str | None) -> Path:
    path = (Path(folder) if folder else cache_folder()) / package.archive
    if folder and not path.is_file():
        raise UserError(f"'runtime': {folder} has no {package.archive}; run `{PACK}` in that folder")
    if path.is_file() and _integrity(path.read_bytes()) == package.integrity:
        return path
    if folder:
        raise UserError(
            f"'runtime': {path} is not {package.name} {VERSION} (its checksum differs); run `{PACK}` in that folder"
        )
    _download(package, path)
    return path


def _unpack(archive: Path, package: Package) -> list[tuple[str, bytes]]:
    with tarfile.open(archive) as members:
        return [(name, members.extractfile(path).read()) for path, name in package.files.items()]


def _integrity(content: bytes) -> str:
    return base64.b64encode(hashlib.sha512(content).digest()).decode()


def _download(package: Package, path: Path) -> None:
    """Download an archive to a file, whole or not at all."""
    from huggingface_hub.utils import httpx  # the version that huggingface_hub uses

    address = f"{registry()}/{package.route}"
    remedy = f"run `{PACK}` on a computer with a network, and add --runtime FOLDER with these two files"
    content = bytearray()
    try:
        with httpx.stream("GET", address, follow_redirects=True, timeout=SECONDS) as answer:
            answer.raise_for_status()
            total = int(answer.headers.get("Content-Length", 0)) or None
            with progress_bar(total=total, desc=package.name, unit="B", unit_scale=True, leave=False) as bar:
                for part in answer.iter_bytes():
                    content += part
                    bar.update(len(part))
    except httpx.HTTPStatusError as error:
        raise UserError(f"'runtime': {address} answered {error.response.status_code}; {remedy}") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        reason = one_line(error) or type(error).__name__
        raise UserError(f"'runtime': {address} cannot be downloaded ({reason}); {remedy}") from None
    if _integrity(content) != package.integrity:
        raise UserError(
            f"'runtime': {address} sent something else than {package.name} {VERSION} (its checksum differs); {remedy}"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_whole(path, shared=True) as stream:
            stream.write(content)
    except OSError as error:
        raise UserError(
            f"'runtime': {path.parent} cannot be written ({error.strerror}); set XDG_CACHE_HOME to another folder"
        ) from None


def cache_folder() -> Path:
    """The folder of kept archives, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scratch"


def registry() -> str:
    """The npm registry: that of npm's environment variable, of ~/.npmrc, or the public one.

    Raises:
        UserError: what is named there is not an address.
    """
    named = next((os.environ[name] for name in VARIABLES if os.environ.get(name)), None) or _configured()
    if named is None:
        return REGISTRY
    if not named.startswith(("https://", "http://")):
        raise UserError(f"'runtime': npm's setting 'registry' is '{named}', not an address such as {REGISTRY}")
    return named.rstrip("/")


def _configured() -> str | None:
    """The registry in the user's settings of npm."""
    try:
        lines = (Path.home() / ".npmrc").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    settings = [(key.strip(), value.strip().strip("\"'")) for key, _, value in (line.partition("=") for line in lines)]
    return next((os.path.expandvars(value) for key, value in settings if key == "registry" and value), None)
