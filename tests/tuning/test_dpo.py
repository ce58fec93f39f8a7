"""What dpo, kto and orpo say before they train, where TRL would say it late or not at all."""

import importlib
import json
import sys
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from tiny_stages import TRAINING, flags, write_data, write_model, write_tokenizer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig

from training.commands import dpo, kto, orpo
from training.common.errors import UserError
from training.tuning.accumulation import ExactAccumulation, ExactMean
from training.tuning.dpo import ScratchDPOTrainer
from training.tuning.orpo import ORPOConfig, ScratchORPOTrainer

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


def train(trainer_class, config_class, folder, batch: int, steps: int, **options) -> dict[str, torch.Tensor]:
    """Loss and weights after a training step of SGD over accumulated batches of three unlike records."""
    answers = {"rejected": " looked"}
    rows = [answers | {"prompt": "the cat" * n, "chosen": " sat" * 3 * n} for n in (1, 2, 3)]
    sgd = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0, "max_steps": 1, "bf16": False}
    args = config_class(
        output_dir=str(folder),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=steps,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        gradient_checkpointing=False,
        **sgd,
        **options,
    )
    trainer = trainer_class(
        model=AutoModelForCausalLM.from_pretrained("pretrain"),
        args=args,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=None,
        processing_class=PreTrainedTokenizerFast.from_pretrained("tokenizer"),
    )
    trainer.train()
    return {"loss": torch.tensor(trainer.state.log_history[0]["loss"])} | trainer.model.state_dict()


@pytest.mark.parametrize(
    "trainer_class, config_class, options",
    [
        (ScratchORPOTrainer, ORPOConfig, {"beta": 1.0}),
        (ScratchDPOTrainer, DPOConfig, {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}),
    ],
    ids=["orpo", "dpo"],
)
def test_accumulation_equals_the_larger_batch(place, tmp_path, trainer_class, config_class, options):
    """Two records and one, of unlike lengths. In TRL a token counts by the length of its batch, a pair by its size."""
    whole = train(trainer_class, config_class, tmp_path, 3, 1, **options)
    parts = train(trainer_class, config_class, tmp_path, 2, 2, **options)
    assert all(torch.allclose(whole[name], parts[name], atol=1e-6, rtol=1e-4) for name in whole)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_mean_over_records_of_all_batches_and_processes(processes):
    """As the Trainer adds it up: the mean over accumulated batches, of which DDP takes the mean over processes."""

    class Mean:
        def compute_loss(self, model, inputs, return_outputs, num_items_in_batch):
            loss = inputs["input_ids"].mean()
            return (loss, "outputs") if return_outputs else loss

    class Trainer(ExactMean, Mean):
        current_gradient_accumulation_steps = 2
        args = SimpleNamespace(average_tokens_across_devices=True)

    values = ([1.0, 2.0], [6.0], [4.0, 5.0], [9.0])
    batches = [{"input_ids": torch.tensor(each)} for each in values[: 2 * processes]]
    trainer = Trainer()
    others = sum(map(len, (batch["input_ids"] for batch in batches[2:])))  # of the second process
    trainer.accelerator = SimpleNamespace(num_processes=processes, reduce=lambda counts: counts + others)
    total = trainer._get_num_items_in_batch(batches[:2], torch.device("cpu"))
    losses = [trainer.compute_loss(None, batch, num_items_in_batch=total) for batch in batches]
    records = torch.cat([batch["input_ids"] for batch in batches])
    assert sum(losses) / 2 / processes == pytest.approx(records.mean())
    assert trainer.compute_loss(None, batches[0], return_outputs=True) == (1.5, "outputs")  # in validation


def test_a_step_without_a_predicted_token():
    """Such as a chosen answer of one token after no prompt: its mean has no weight."""
    trainer = ExactAccumulation()
    trainer.current_gradient_accumulation_steps, trainer.accelerator = 1, SimpleNamespace(num_processes=1)
    assert trainer.factors({"input_ids": []}, torch.tensor([0])) == [0]


def test_orpo_reads_conversations_that_trl_would_reject(place, tmp_path):
    """TRL renders a prompt only if a user or a tool ends it, and passes calls to the template as JSON text."""
    call = {"type": "function", "function": {"name": "look", "arguments": '{"at": "mat"}'}}
    calling = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    prompt = [{"role": "system", "content": "Look."}]
    options = {"report_to": "none", "use_cpu": True, "bf16": False, "max_length": 128}
    tokenizer = PreTrainedTokenizerFast.from_pretrained("tokenizer")
    trainer = ScratchORPOTrainer(
        model=AutoModelForCausalLM.from_pretrained("pretrain"),
        args=ORPOConfig(output_dir=str(tmp_path), **options),
        train_dataset=Dataset.from_list([{"prompt": prompt, "chosen": calling, "rejected": ANSWER}]),
        eval_dataset=None,
        processing_class=tokenizer,
    )
    (row,) = trainer.train_dataset
    assert '{"name": "look", "arguments": {"at": "mat"}}' in tokenizer.decode(row["chosen_input_ids"])
    shown = tokenizer.decode(row["prompt_input_ids"], skip_special_tokens=True)
    assert row["prompt"] == shown and "Look." in shown


def test_a_loss_that_kto_does_not_know(place):
    with pytest.raises(UserError, match="'loss_type': no loss 'kyo'; did you mean 'kto'?"):
        run(kto, loss_type="kyo")
    assert not (place / "new").exists() and not (place / "new.partial").exists()
    run(kto, loss_type="apo_zero_unpaired", train_sampling_strategy="random", max_length=60)
