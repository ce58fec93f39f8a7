"""YAML as people write it, and as it should not be written: one line, in bounded time and memory."""

import pytest
from messages import refused

from training.stages.yaml_values import read_value, read_yaml

# Ten to the ninth texts, each line ten times the one above.
BOMB = "\n".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}' if n else 'x'] * 10)}]" for n in range(9))


@pytest.mark.parametrize(
    "text",
    [BOMB, "a: &a [*a]", "a: &a {b: *a}", "a: 2024-13-01", "a: !!int x", "a: !!timestamp x", "a: !!bool x"]
    + ["a: " + "[" * 600, "a: " + "1" * 5000],
    ids=lambda text: text[:12],
)
def test_values_that_cannot_be_made(tmp_path, text):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with refused(None, f"{file}:", "not valid YAML"):
        read_yaml(file)
    value = text.partition(": ")[2]
    assert text is BOMB or read_value(value) == value


def test_keys_are_text(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("base: &base {one: 1}\nnull: 2\n2024: {<<: *base, true: x}\n")
    assert read_yaml(file) == {"base": {"one": 1}, "null": 2, "2024": {"one": 1, "true": "x"}}
    assert read_value("{2024: 5}") == {"2024": 5}
