"""Damaged files of our own: every other shape than the written one is noticed."""

import json
from types import NoneType

import pytest

from training.common.json_files import fits, read_json

NUMBER = (int, float, NoneType)
SHAPE = {"name": str, "values": [NUMBER], "by": {str: {"count": int}}, "any": {str: object}}
VALUE = {"name": "a", "values": [1, 0.5, None], "by": {"x": {"count": 1, "more": 2}}, "any": {"b": True}, "other": []}


def test_fits():
    assert fits(VALUE, SHAPE)
    wrong = [{"name": 1}, {"values": [True]}, {"values": {}}, {"by": {"x": {}}}, {"by": [1]}, {"any": "b"}]
    assert not any(fits(VALUE | part, SHAPE) for part in wrong)
    assert not fits({key: VALUE[key] for key in VALUE if key != "name"}, SHAPE) and not fits([VALUE], SHAPE)
    assert fits(True, (bool, int)) and not fits(True, int)
    assert fits({}, {"name?": str}) and fits({"name": "a"}, {"name?": str}) and not fits({"name": 1}, {"name?": str})


@pytest.mark.parametrize("text", ["", "[1", "null", '{"name": 1}', "\xff", "[" * 9999, '{"name": "\\uD83e"}'])
def test_damage_is_a_value_error(tmp_path, text):
    file = tmp_path / "a.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError):
        read_json(file, {"name": str})
    file.write_text(json.dumps(VALUE))
    assert read_json(file, SHAPE) == VALUE
