import pytest

from training.corpus.sources import path_reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("site/torch/nn/functional.py", None),
        ("site/latest/attestation.py", None),
        ("site/torch/test_case.py", "test"),
        ("site/numpy/tests/helpers.py", "test"),
        ("stdlib/test/regrtest.py", "test"),
        ("site/pip/_vendor/rich/box.py", "vendored copy"),
    ],
)
def test_rules_for_names(name, reason):
    assert path_reason(name) == reason
