import pytest

from training.common.hub_names import is_hub_name


@pytest.mark.parametrize(
    "path, on_hub",
    [
        ("openai-community/gpt2", True),
        ("roneneldan/TinyStories", True),
        ("gpt2", False),  # one word is a folder here, so that a misspelt one is not looked for on the Hub
        ("mine/sft", False),  # `mine` is a folder here: `sft` is missing in it
        ("runs/sft", False),  # where recipes write, even before anything is there
        ("runs/quickstart/sft", False),
        ("./owner/name", False),
        ("/owner/name", False),
        ("here/model", False),
    ],
)
def test_a_folder_or_a_name_on_the_hub(tmp_path, monkeypatch, path, on_hub):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "here" / "model").mkdir(parents=True)
    assert is_hub_name(path) is on_hub
