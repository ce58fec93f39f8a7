"""What dpo, kto and orpo say before they train, where TRL would say it late or not at all."""

import importlib
import json
import sys

import pytest
from tiny_stages import TRAINING, flags, write_data, write_model, write_tokenizer

from training.commands import dpo, kto, orpo
from training.common.errors import UserError

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

QUESTION = [{"role": "user", "content": "Where is the cat?"}]
LONG = [{"role": "user", "content": "Where is the cat? " * 10}]
ANSWER, OTHER = ([{"role": "assistant", "content": words}] for words in ("on a mat", "under a table"))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    place = tmp_path_factory.mktemp("outputs")
    write_data(place / "data", write_tokenizer(place / "tokenizer"))
    write_model(place / "pretrain", place / "tokenizer")
    prompts = [QUESTION, QUESTION, LONG]
    records = {
        "dpo": [{"prompt": prompt, "chosen": ANSWER, "rejected": OTHER} for prompt in prompts],
        "kto": [{"prompt": prompt, "completion": ANSWER, "label": prompt is QUESTION} for prompt in prompts],
    }
    for verb, rows in (records | {"orpo": records["dpo"]}).items():
        (place / f"{verb}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def run(stage, **options: object) -> None:
    verb = stage.__name__.rpartition(".")[2]
    required = {
        "model_name_or_path": "pretrain",
        "output_dir": "new",
        "datasets": json.dumps([{"path": "json", "data_files": {"train": f"{verb}.jsonl"}}]),
        "trust_remote_code": "true",
        "gradient_checkpointing": "false",
    }
    stage.main(flags(required | TRAINING | {"max_steps": 1} | options))


@pytest.mark.parametrize("stage", [dpo, kto, orpo], ids=["dpo", "kto", "orpo"])
def test_records_that_are_too_long(place, capsys, caplog, stage):
    with pytest.raises(UserError, match="'max_length': every prompt of train fills all 4 tokens and leaves no room"):
        run(stage, max_length=4)
    assert not (place / "new").exists() and not (place / "new.partial").exists()
    with pytest.raises(UserError, match="1 records of train exceed the model's 128 positions .*; set max_length: 128"):
        run(stage)
    run(stage, max_length=60)
    assert "train: 1 of 3 records are dropped: their prompts fill max_length 60" in capsys.readouterr().out
    assert "remove_unused_columns" not in caplog.text  # of which TRL's orpo speaks in every run


def test_orpo_is_opened_without_a_warning(monkeypatch, recwarn):
    for module in [name for name in sys.modules if name.startswith(("trl.experimental", "training.tuning.orpo"))]:
        monkeypatch.delitem(sys.modules, module)
    importlib.import_module("training.tuning.orpo")
    assert "trl.experimental" in sys.modules and not recwarn.list


def test_a_loss_that_kto_does_not_know(place):
    with pytest.raises(UserError, match="'loss_type': no loss 'kyo'; did you mean 'kto'?"):
        run(kto, loss_type="kyo")
    assert not (place / "new").exists() and not (place / "new.partial").exists()
    run(kto, loss_type="apo_zero_unpaired", train_sampling_strategy="random", max_length=60)
