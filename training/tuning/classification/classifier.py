"""Text classifier: a language model with a classification head, its data, training arguments and predictions."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

import modeling_scratch  # noqa: F401  (registers our classes with the Auto classes)
from training.common.device import has_bf16, pick_device
from training.common.errors import UserError
from training.common.metrics import METRICS
from training.corpus.examples.labelled import Labelled
from training.machine.callback import FollowLoad
from training.model_io.model_folder import quiet_loading
from training.model_io.tokenizers import naming_unknown, open_model_tokenizer
from training.plots.confusion import draw_confusion
from training.plots.losses import plot_losses, trainer_curves
from training.stages.recipe import nearest
from training.tuning.classification.scores import ClassificationScores

LOSS = "cross-entropy (nats per text; lower is better)"


def open_padding_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, which can pad a batch, and takes special tokens in a text as text.

    Raises:
        UserError: it has no padding token, is damaged, or does not fit the model.
    """
    tokenizer = open_model_tokenizer(model, "model")
    if tokenizer.pad_token_id is None:
        raise UserError(f"'model': the tokenizer in {model} has no pad_token, which a batch of texts needs")
    tokenizer.padding_side = "right"  # tokens keep their positions; a language model's tokenizer pads left, to generate
    tokenizer.split_special_tokens = True
    return tokenizer


def pick_positive(requested: str | None, labels: list[str]) -> str | None:
    """The label that F1 is computed for; None for the mean over all labels.

    Args:
        requested: by the recipe; None for the rarer of two labels.
        labels: of the training texts.

    Raises:
        UserError: no training text has the requested label.
    """
    counts = Counter(labels)
    if requested is not None and requested not in counts:
        raise UserError(
            f"'positive_label': no training record has the label '{requested}'; {nearest(requested, counts)}"
        )
    return requested if requested or len(counts) > 2 else min(sorted(counts), key=counts.__getitem__)


def report_absent(positive: str | None, data: dict[str, Labelled]) -> None:
    """Print which split has no text of the positive label: its F1 there is 0, whatever the model predicts."""
    for split, effect in {"validation": " in every epoch, so that the first is kept", "test": ""}.items():
        if positive is not None and positive not in data[split].labels:
            print(
                f"classify: no {split} text has the label '{positive}', whose F1 is therefore 0{effect}; give a file "
                f"with such texts as 'data.{split}'"
            )


def build_classifier(model: str, labels: list[str], seed: int, from_random_weights: bool = False) -> PreTrainedModel:
    """A language model with a new classification head on its last token.

    Args:
        model: folder or Hub name of the language model.
        seed: for the new scores.
        from_random_weights: keep the architecture, and initialize all weights.
    """
    set_seed(seed)
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)}}
    if from_random_weights:
        return AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(model, **names))
    with quiet_loading():  # the warnings that the classification head is new and the output matrix unused
        return AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32, **names)


def tokenize_texts(
    texts: list[str],
    labels: list[str],
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    max_length: int,
    split: str,
) -> list[dict[str, Any]]:
    """`input_ids` and `labels` of each text, truncated to `max_length` and the model's positions. Prints how many are.

    Args:
        max_length: tokens in a text.
        split: what to call the texts.
    """
    limit = min(max_length, model.config.max_position_embeddings)
    with naming_unknown(tokenizer, texts):
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    longer = sum(len(tokens) > limit for tokens in ids)
    if longer:
        print(f"classify: {longer} of {len(ids)} {split} texts have more than {limit} tokens and are truncated")
    return [
        {"input_ids": tokens[:limit], "labels": model.config.label2id[label]}
        for tokens, label in zip(ids, labels, strict=True)
    ]


def training_arguments(
    output_dir: Path, epochs: int, batch_size: int, learning_rate: float, weight_decay: float, seed: int
) -> TrainingArguments:
    """The Trainer's arguments: evaluate after each epoch, and keep the one with the best F1.

    Args:
        output_dir: for checkpoints.
        batch_size: texts per step and device.
        learning_rate: its peak, after 10 % of the steps; then it falls linearly to 0.
    """
    device = pick_device()
    return TrainingArguments(
        output_dir=str(output_dir),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=4 * batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup_steps=0.1,
        seed=seed,
        use_cpu=device.type == "cpu",
        bf16=has_bf16(device),
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="f1",
        logging_steps=10,
        report_to="none",
    )


def build_trainer(
    arguments: TrainingArguments,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: dict[str, list[dict[str, Any]]],
    score: Callable[[Any], ClassificationScores],
) -> Trainer:
    """The Trainer, ready to train.

    Args:
        examples: tokenized texts by split.
        score: from the Trainer's predictions to their scores.
    """

    def metrics(outcome: Any) -> dict[str, float]:
        scores = score(outcome)
        return {"accuracy": scores.accuracy.value, "f1": scores.f1}

    return Trainer(
        model=model,
        args=arguments,
        train_dataset=examples["train"],
        eval_dataset=examples["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=metrics,
        callbacks=[FollowLoad()],
    )


def predict(trainer: Trainer, examples: list[dict[str, Any]]) -> Any:
    """The Trainer's predictions, in the order of the texts: `predictions` (texts, labels), `label_ids` (texts)."""
    trainer.args.train_sampling_strategy = "sequential"  # instead of by length
    return trainer.predict(examples)


def save_results(
    folder: Path, trainer: Trainer, test: Labelled, logits: np.ndarray, scores: ClassificationScores
) -> list[str]:
    """Write predictions.jsonl, labels.csv, confusion.csv, confusion.png and, if there are losses, loss.png.

    Args:
        test, logits, scores: the test split, the predictions for it, (texts, labels), and their scores.

    Returns:
        The names of the files.
    """
    labels = [row.label for row in scores.labels]
    write_predictions(folder / "predictions.jsonl", test.texts, test.labels, logits, labels)
    drawn = plot_losses(trainer_curves(trainer.state.log_history), folder / "loss.png", "classify", "step", LOSS)
    draw_confusion(folder / "confusion.png", scores.confusion, labels)
    return ["predictions.jsonl", METRICS, *scores.write(folder), *drawn, "confusion.png"]


def write_predictions(file: Path, texts: list[str], truth: list[str], logits: np.ndarray, labels: list[str]) -> None:
    """Write each text with its label, the predicted one and its probability, as JSON lines.

    Args:
        logits: (texts, labels).
    """
    probabilities = torch.from_numpy(logits).float().softmax(-1)
    with file.open("w", encoding="utf-8") as stream:
        for text, label, row in zip(texts, truth, probabilities, strict=True):
            record = {"text": text, "label": label, "predicted": labels[row.argmax()]}
            record["probability"] = round(row.max().item(), 4)
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
