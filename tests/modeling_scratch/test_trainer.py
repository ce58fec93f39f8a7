"""transformers' Trainer treats our classes as its own: the loss, with and without label smoothing."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_model import build, logits, tokens
from transformers import PreTrainedModel, Trainer, TrainingArguments

from modeling_scratch import ScratchForCausalLM, ScratchForTokenClassification
from modeling_scratch.conversion_scratch import to_stock

# In each row the next token is the current one plus 1.
ROWS = (tokens(16, 1) + torch.arange(12)) % 95 + 1


class Renamed(ScratchForCausalLM):
    """A user's own class."""


def renamed() -> PreTrainedModel:
    model = Renamed(build().config)
    model.load_state_dict(build().state_dict())
    return model


MODELS = {
    "llama": lambda: to_stock(build(), "llama"),
    "ours": build,
    "subclass": renamed,
    "lora": lambda: get_peft_model(build(), LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")),
}


def train(model, rows, labels, folder, **options) -> float:
    """The mean of the losses that Trainer trains with."""
    arguments = TrainingArguments(folder, use_cpu=True, save_strategy="no", disable_tqdm=True, **options)
    dataset = [{"input_ids": row, "labels": label} for row, label in zip(rows, labels, strict=True)]
    return Trainer(model, arguments, train_dataset=dataset).train().training_loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_that_of_the_next_token(name, smoothing, tmp_path):
    model = MODELS[name]()
    log_probs = logits(model, ROWS)[:, :-1].log_softmax(dim=-1)
    right = log_probs.gather(-1, ROWS[:, 1:, None]).mean()
    expected = -(1 - smoothing) * right - smoothing * log_probs.mean()
    options = {"max_steps": 1, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    found = train(model, ROWS, ROWS, tmp_path, label_smoothing_factor=smoothing, **options)
    assert found == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("name", ["llama", "ours"])
def test_a_model_that_trains_with_label_smoothing_learns_the_next_token(name, tmp_path):
    model = MODELS[name]()
    options = {"max_steps": 40, "per_device_train_batch_size": 16, "learning_rate": 1e-2}
    train(model, ROWS, ROWS, tmp_path, label_smoothing_factor=0.1, **options)
    assert torch.equal(logits(model.eval(), ROWS).argmax(dim=-1)[:, :-1], ROWS[:, 1:])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_labels_of_tokens_is_not_shifted(smoothing, tmp_path):
    config = build().config
    config.num_labels = 3
    model = ScratchForTokenClassification(config)
    labels = ROWS % 3
    log_probs = logits(model, ROWS).log_softmax(dim=-1)
    expected = -(1 - smoothing) * log_probs.gather(-1, labels[..., None]).mean() - smoothing * log_probs.mean()
    options = {"max_steps": 1, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    found = train(model, ROWS, labels, tmp_path, label_smoothing_factor=smoothing, **options)
    assert found == pytest.approx(expected.item(), rel=1e-4)
