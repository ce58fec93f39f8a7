"""wllama's archives: downloaded once from the registry that npm would use, and never used if their bytes differ."""

import shutil

import pytest
from browser_runtime import CONTENTS, pin_archives, serving_files

from training.browser_page import runtime
from training.browser_page.runtime import PACKAGES, open_runtime, registry
from training.common.errors import UserError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home without settings of npm and without a cache."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in (*runtime.VARIABLES, "XDG_CACHE_HOME", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def packed(monkeypatch, tmp_path):
    return pin_archives(monkeypatch, tmp_path / "packed")


@pytest.fixture
def host(packed, tmp_path):
    """The folder of a registry with the pinned archives."""
    host = tmp_path / "host"
    for package in runtime.PACKAGES:
        (host / package.route).parent.mkdir(parents=True)
        shutil.copy(packed / package.archive, host / package.route)
    return host


def test_the_files_are_downloaded_once(host, home, monkeypatch):
    with serving_files(host) as (address, asked):
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"{address}/")
        assert open_runtime() == CONTENTS
        assert asked == [f"/{package.route}" for package in PACKAGES]
        kept = home / ".cache" / "scratch"
        assert {path.name for path in kept.iterdir()} == {package.archive for package in PACKAGES}
        assert open_runtime() == CONTENTS and len(asked) == 2
        (kept / PACKAGES[0].archive).write_bytes(b"damaged")
        assert open_runtime() == CONTENTS and len(asked) == 3
    assert open_runtime() == CONTENTS  # without a network


def test_other_bytes_are_not_kept(host, home, monkeypatch):
    (host / PACKAGES[1].route).write_bytes((host / PACKAGES[0].route).read_bytes())
    with serving_files(host) as (address, _):
        monkeypatch.setenv("npm_config_registry", address)
        with pytest.raises(UserError, match="sent something else than @wllama/wllama-compat 3.13.0 .*npm pack"):
            open_runtime()
    assert [path.name for path in (home / ".cache" / "scratch").iterdir()] == [PACKAGES[0].archive]


def test_without_a_registry_the_error_says_what_to_fetch(packed, tmp_path, monkeypatch):
    with serving_files(tmp_path) as (address, _):
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", address)
        with pytest.raises(UserError, match=f"'runtime': {address}/@wllama/wllama/-/wllama-3.13.0.tgz answered 404"):
            open_runtime()
    with pytest.raises(UserError) as refused:  # nobody listens there any more
        open_runtime()
    assert "npm pack @wllama/wllama@3.13.0 @wllama/wllama-compat@3.13.0" in str(refused.value)
    assert "--runtime FOLDER" in str(refused.value) and "\n" not in str(refused.value)


def test_a_cache_that_cannot_be_written(host, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with serving_files(host) as (address, _):
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", address)
        with pytest.raises(UserError, match="cannot be written .*; set XDG_CACHE_HOME to another folder"):
            open_runtime()


def test_archives_from_a_folder(packed, monkeypatch):
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")
    assert open_runtime(str(packed)) == CONTENTS
    archive = packed / PACKAGES[0].archive
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"wllama-wllama-3.13.0.tgz is not @wllama/wllama 3.13.0 .*npm pack"):
        open_runtime(str(packed))
    archive.unlink()
    with pytest.raises(UserError, match="'runtime': .* has no wllama-wllama-3.13.0.tgz; run `npm pack"):
        open_runtime(str(packed))


def test_the_registry_is_that_of_npm(home, monkeypatch):
    assert registry() == "https://registry.npmjs.org"
    monkeypatch.setenv("MIRROR", "https://two.example/npm")
    (home / ".npmrc").write_text("; registry = https://one.example\nfund=false\nregistry = ${MIRROR}/\n")
    assert registry() == "https://two.example/npm"
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://three.example/")
    assert registry() == "https://three.example"
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "three.example")
    with pytest.raises(UserError, match="npm's setting 'registry' is 'three.example', not an address"):
        registry()
