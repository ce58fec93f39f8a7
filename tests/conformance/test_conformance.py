"""transformers' own shared tests do not tell our classes from its Llama."""

import subprocess
import sys

import pytest
from run import HERE, CannotRun, IndexUnreachable, compare, fetch, to_ask_llama

# Those that differ most stand for the others.
SOME = ("gpt2", "scratch")


@pytest.mark.parametrize("shapes", [SOME, pytest.param((), marks=pytest.mark.release)], ids=["some", "all"])
def test_no_shared_test_is_worse_for_ours_than_for_llama(shapes):
    done = subprocess.run([sys.executable, HERE / "run.py", *shapes], capture_output=True, text=True)
    if done.returncode == IndexUnreachable.status:
        pytest.skip(done.stderr.strip())
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_worse_is_a_failure_a_skip_or_no_test_where_llama_passes():
    llama = {"test_a": "passed", "test_b": "passed", "test_c": "passed", "test_d": "skipped", "test_rope": "passed"}
    ours = {"test_a": "failed", "test_b": "skipped", "test_d": "passed", "test_rope": "failed"}
    results = {("llama_multi_head_tied", test): (outcome, "") for test, outcome in llama.items()}
    results |= {
        (f"ours_{shape}", test): (outcome, "")
        for shape in ("multi_head_tied", "gpt2")
        for test, outcome in ours.items()
    }
    names = [name for name in results if name[0].startswith("llama")]
    row, worse = compare(results, names, "multi_head_tied")
    assert list(worse) == ["test_a", "test_b", "test_c", "test_rope"]
    assert row == [1, 1, 3]
    assert list(compare(results, names, "gpt2")[1]) == ["test_a", "test_b", "test_c"]  # it has no RoPE
    asked = to_ask_llama(results, names, ["multi_head_tied", "gpt2"])
    assert asked == [f"llama_multi_head_tied::test_{test}" for test in ("a", "b", "c", "rope")]


def test_no_index_is_told_from_an_index_without_the_release(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(IndexUnreachable, match="no package index can be reached"):
        fetch("5.0.0", tmp_path)
    page = tmp_path / "simple" / "transformers" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text('<a href="transformers-4.0.0.tar.gz">transformers-4.0.0.tar.gz</a>')
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    with pytest.raises(CannotRun, match="4.0.0") as caught:
        fetch("5.0.0", tmp_path)
    assert not isinstance(caught.value, IndexUnreachable)
    assert not list(tmp_path.glob("*.tar.gz"))
