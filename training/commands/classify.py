"""scratch classify: teach a model to name a text's label, such as spam or ham.

Takes texts with labels (files of .jsonl, .csv, .tsv or .parquet, or a data set on the Hub), puts a score for each label
on the last token of the network, trains all of it with transformers' Trainer, keeps the epoch that does best on the
validation split, and reports the test split beside logistic regression on words. The result opens with
AutoModelForSequenceClassification and `pipeline("text-classification")`.
"""

import json
import shutil
from collections import Counter
from dataclasses import dataclass
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
from training.common.recipe import nearest, option, parse, required
from training.common.stage import Stage, model_digest
from training.corpus.examples.labelled import Labelled, LabelledConfig, labelled_digests, read_labelled
from training.eval.measures.classification import scores, tfidf_baseline
from training.model_io.model_folder import quiet_loading, save_model
from training.model_io.tokenizers import open_model_tokenizer
from training.model_io.weights import check_weights
from training.plots.confusion import draw_confusion
from training.plots.losses import plot_losses
from training.tuning.trl import newest_checkpoint


@dataclass
class ClassifyConfig:
    output_dir: str = required("folder for the classifier")
    model: str = required(
        "folder of the language model to start from, as pretrain or a later stage leaves it; or a Hub name"
    )
    data: LabelledConfig = option(LabelledConfig, "texts with labels")
    positive_label: str | None = option(None, "what F1 is about; by default the rarer of two, and the mean of more")
    from_random_weights: bool = option(False, "start the same network untrained, to see what its training was worth")
    baseline: bool = option(True, "fit logistic regression on TF-IDF too, the score to beat")
    max_length: int = option(256, "tokens of a text that are read; the rest is cut off, and counted")
    num_train_epochs: int = option(4, "times every training text is seen")
    per_device_train_batch_size: int = option(16, "texts a step and device")
    learning_rate: float = option(5e-4, "at its peak, after a tenth of the steps; then it falls to 0 in a line")
    weight_decay: float = option(0.1, "of AdamW")
    seed: int = option(0, "for the new scores, the order of the texts, and dropout")

    def __post_init__(self):
        if min(self.max_length, self.num_train_epochs, self.per_device_train_batch_size) < 1:
            raise ValueError("'max_length', 'num_train_epochs' and 'per_device_train_batch_size' are 1 or more")


CONFIG = ClassifyConfig


def main(arguments: list[str]) -> None:
    config = parse(ClassifyConfig, arguments, __doc__)
    inputs = labelled_digests(config.data) | {"model": model_digest(config.model, "model")}
    stage = Stage("classify", config.output_dir, config, inputs, arguments)
    if stage.is_current():
        return
    tokenizer = open_model_tokenizer(config.model, "model")
    if tokenizer.pad_token_id is None:
        raise UserError(f"'model': the tokenizer in {config.model} has no pad_token, which texts of a batch need")
    check_weights(config.model, "model")
    data = read_labelled(config.data)
    labels = sorted(set(data["train"].labels))
    positive = pick_positive(config.positive_label, data["train"].labels)
    model = build_model(config, labels)
    examples = {split: tokenize(part, tokenizer, model, config, split) for split, part in data.items()}

    folder = stage.begin()
    trainer = Trainer(
        model=model,
        args=training_arguments(config, folder),
        train_dataset=examples["train"],
        eval_dataset=examples["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda outcome: summary(score(outcome, labels, positive)),
    )
    try:
        trainer.train(resume_from_checkpoint=newest_checkpoint(folder / "trainer"))
    finally:
        stage.heartbeat()

    trainer.args.train_sampling_strategy = "sequential"  # predictions come in the order of the texts, not by length
    results = {name: trainer.predict(examples[name]) for name in ("validation", "test")}
    figures = {name: score(outcome, labels, positive) for name, outcome in results.items()}
    if config.baseline:
        train, validation = ((data[name].texts, data[name].labels) for name in ("train", "validation"))
        guesses = tfidf_baseline(train, validation, data["test"].texts)
        figures["baseline"] = scores(data["test"].labels, guesses, labels, positive)
    save_model(trainer.model, config.model, folder)
    write_results(folder, trainer, data["test"], results["test"].predictions, figures, labels)
    print(table(figures, positive))
    shutil.rmtree(folder / "trainer")  # its checkpoints, of use only to go on
    stage.finish(
        {"labels": labels, "positive": positive} | figures, "model, predictions.jsonl, confusion.png, loss.png"
    )


def pick_positive(wanted: str | None, labels: list[str]) -> str | None:
    """The label that F1 is about, None for the mean of all.

    Raises:
        UserError: no such label.
    """
    counts = Counter(labels)
    if wanted is not None and wanted not in counts:
        raise UserError(f"'positive_label': no training record has the label '{wanted}'; {nearest(wanted, counts)}")
    return wanted if wanted or len(counts) > 2 else min(sorted(counts), key=counts.__getitem__)


def build_model(config: ClassifyConfig, labels: list[str]) -> PreTrainedModel:
    """The network with a score for each label: its own weights below, random ones (by the seed) in the scores."""
    set_seed(config.seed)
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)}}
    if config.from_random_weights:
        return AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(config.model, **names))
    with quiet_loading():  # that the scores are new, and the head of the language model is not used
        return AutoModelForSequenceClassification.from_pretrained(config.model, dtype=torch.float32, **names)


def tokenize(
    data: Labelled, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, config: ClassifyConfig, split: str
) -> list[dict[str, Any]]:
    """What the Trainer takes: `input_ids` and `labels` of each text. Says how many were cut."""
    most = min(config.max_length, model.config.max_position_embeddings)
    ids = tokenizer(data.texts, add_special_tokens=False)["input_ids"]
    longer = sum(len(tokens) > most for tokens in ids)
    if longer:
        print(f"classify: {longer} of {len(ids)} {split} texts have more than {most} tokens and are cut there")
    return [
        {"input_ids": tokens[:most], "labels": model.config.label2id[label]}
        for tokens, label in zip(ids, data.labels, strict=True)
    ]


def training_arguments(config: ClassifyConfig, folder: Path) -> TrainingArguments:
    device = pick_device()
    return TrainingArguments(
        output_dir=str(folder / "trainer"),
        num_train_epochs=config.num_train_epochs,
        per_device_train_batch_size=config.per_device_train_batch_size,
        per_device_eval_batch_size=4 * config.per_device_train_batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_steps=0.1,
        seed=config.seed,
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


def score(outcome: Any, labels: list[str], positive: str | None) -> dict[str, Any]:
    """`scores` of what the Trainer predicted: `predictions` (texts, labels) and `label_ids` (texts)."""
    truth, predicted = outcome.label_ids, outcome.predictions.argmax(axis=-1)
    return scores([labels[index] for index in truth], [labels[index] for index in predicted], labels, positive)


def summary(figures: dict[str, Any]) -> dict[str, float]:
    """What the Trainer logs in an epoch."""
    return {"accuracy": figures["accuracy"]["value"], "f1": figures["f1"]}


def write_results(
    folder: Path, trainer: Trainer, test: Labelled, logits: np.ndarray, figures: dict[str, Any], labels: list[str]
) -> None:
    """Every test text with its label and the predicted one, the log, and the pictures."""
    chances = torch.from_numpy(logits).float().softmax(-1)
    with (folder / "predictions.jsonl").open("w", encoding="utf-8") as stream:
        for text, label, row in zip(test.texts, test.labels, chances, strict=True):
            record = {"text": text, "label": label, "predicted": labels[row.argmax()]}
            record["probability"] = round(row.max().item(), 4)
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
    history = trainer.state.log_history
    (folder / METRICS).write_text("".join(json.dumps(record) + "\n" for record in history))
    losses = [record for record in history if "loss" in record]
    losses += [record | {"validation_loss": record["eval_loss"]} for record in history if "eval_loss" in record]
    plot_losses(losses, folder / "loss.png", "classify", unit="step")
    accuracy = figures["test"]["accuracy"]["value"]
    draw_confusion(folder / "confusion.png", figures["test"]["confusion"], labels, f"test: {accuracy:.1%} right")


def table(figures: dict[str, Any], positive: str | None) -> str:
    """The test split's figures beside the baseline's, for the terminal."""
    about = "mean of labels" if positive is None else positive
    test = figures["test"]["accuracy"]
    lines = [f"test, {test['n']} texts; always the commonest label: {test['chance']:.1%}; F1 of: {about}"]
    for name, key in {"this model": "test", "TF-IDF and logistic regression": "baseline"}.items():
        if key in figures:
            row = figures[key]
            stderr = row["accuracy"]["stderr"] or 0.0
            lines.append(
                f"  {name:<31} accuracy {row['accuracy']['value']:.2%} ± {stderr:.2%}  F1 {row['f1']:.4f}  "
                f"precision {row['precision']:.4f}  recall {row['recall']:.4f}"
            )
    return "\n".join(lines)
