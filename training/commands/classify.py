"""scratch classify: train a text classifier, such as spam or ham, from a language model.

    scratch classify --model runs/mine/pretrain --output_dir runs/mine/classify --data.train train.jsonl \\
        --data.validation val.jsonl --data.test test.jsonl

Data: texts with labels, in files of .jsonl, .csv, .tsv or .parquet, or a dataset on the Hub. Without a validation or
test file, a tenth of the training texts is drawn for it. All weights are trained, with a new classification head on the
last token. The epoch with the best F1 on the validation split is kept. The test scores are reported beside those of a
linear SVM on TF-IDF. The output opens with AutoModelForSequenceClassification and `pipeline("text-classification")`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.common.estimates import paired_difference
from training.corpus.examples.labelled import Labelled, LabelledConfig, labelled_digests, read_labelled
from training.model_io.model_kinds import model_digest
from training.stages.flags import parse
from training.stages.recipe import PathText, option, required
from training.stages.stage import Stage

if TYPE_CHECKING:
    from training.tuning.classification.scores import ClassificationScores

WHEN_BEHIND = (
    "try a higher learning_rate, a larger max_length if texts were truncated, or a base pretrained on more text of "
    "this kind; see docs/classification.md"
)


@dataclass
class ClassifyConfig:
    """Recipe of `scratch classify`."""

    output_dir: PathText = required("folder for the classifier")
    model: PathText = required("language model to start from: folder of pretrain or a later stage, or a Hub name")
    data: LabelledConfig = option(LabelledConfig, "texts with labels")
    positive_label: str | None = option(
        None, "label to compute F1 for (default: the rarer of two labels; with more, the mean over all)"
    )
    from_random_weights: bool = option(False, "start from random weights, to measure what pretraining contributes")
    baseline: bool = option(True, "also fit a linear SVM on TF-IDF, the score to beat")
    max_length: int = option(256, "tokens in a text; longer texts are truncated and counted", at_least=1)
    num_train_epochs: int = option(4, "passes over the training texts", at_least=1)
    per_device_train_batch_size: int = option(16, "texts per step and device", at_least=1)
    learning_rate: float = option(5e-4, "peak learning rate, after 10 % of the steps; falls linearly to 0", at_least=0)
    weight_decay: float = option(0.1, "weight decay of AdamW", at_least=0)
    seed: int = option(0, "seed of the new head, the order of the texts and dropout", at_least=0, below=2**32)


CONFIG = ClassifyConfig


def inputs(config: ClassifyConfig) -> dict[str, str]:
    """The digests of the model and of the files with texts."""
    return labelled_digests(config.data) | {"model": model_digest(config.model, "model")}


def main(arguments: list[str]) -> None:
    """Run the stage.

    1. Read the recipe; stop if the output is up to date.
    2. Read the texts, open the tokenizer, and build the classifier.
    3. Tokenize; count truncated texts.
    4. Train, resuming from the newest checkpoint; keep the best epoch.
    5. Score the validation and the test split, and the baseline.
    6. Save the model, predictions, metrics and plots; print the test split's figures.

    Raises:
        UserError: a mistake in the recipe or the data, before anything is written.
        Interrupted: a signal stopped the run, with its last step saved.
    """
    config = parse(ClassifyConfig, arguments, __doc__)
    stage = Stage("classify", config.output_dir, config, inputs(config), arguments)
    if stage.is_current():
        return

    from training.model_io.model_folder import save_model, set_tokenizer_options
    from training.model_io.weights import check_weights
    from training.tuning.classification.classifier import (
        build_classifier,
        build_trainer,
        open_padding_tokenizer,
        pick_positive,
        predict,
        report_absent,
        save_results,
        tokenize_texts,
        training_arguments,
    )
    from training.tuning.figures import FIGURES
    from training.tuning.pipeline.progress import hide_bars_in_logs, show_progress
    from training.tuning.pipeline.resume import train

    hide_bars_in_logs()
    tokenizer = open_padding_tokenizer(config.model)
    check_weights(config.model, "model")
    data = read_labelled(config.data, config.seed)
    labels = sorted(set(data["train"].labels))
    positive = pick_positive(config.positive_label, data["train"].labels)
    report_absent(positive, data)
    model = build_classifier(config.model, labels, config.seed, config.from_random_weights)
    examples = {
        split: tokenize_texts(part.texts, part.labels, tokenizer, model, config.max_length, split)
        for split, part in data.items()
    }
    folder = stage.begin()
    settings = training_arguments(
        folder / "trainer",
        epochs=config.num_train_epochs,
        batch_size=config.per_device_train_batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        seed=config.seed,
    )
    trainer = build_trainer(settings, model, tokenizer, examples, lambda outcome: score(outcome, labels, positive))
    show_progress(trainer, FIGURES["classify"])
    train(stage, trainer)
    results = {split: predict(trainer, examples[split]) for split in ("validation", "test")}
    scores = {split: score(outcome, labels, positive) for split, outcome in results.items()}
    if config.baseline:
        scores["baseline"] = score_baseline(data, labels, positive, config.seed)
    save_model(trainer.model, config.model, folder)
    set_tokenizer_options(folder, split_special_tokens=True)  # wherever it is opened, as in training
    files = save_results(folder, trainer, data["test"], results["test"].predictions, scores["test"])
    print(table(scores, positive))
    figures = {name: found.to_json() for name, found in scores.items()}
    stage.finish({"labels": labels, "positive": positive} | figures, ", ".join(["model", *files]))


def score(outcome: Any, labels: list[str], positive: str | None) -> "ClassificationScores":
    """The scores of the Trainer's predictions.

    Args:
        outcome: with `predictions` (texts, labels) and `label_ids` (texts).
        labels: names, by label id.
        positive: see `pick_positive`.
    """
    from training.tuning.classification.scores import classification_scores

    truth, predicted = outcome.label_ids, outcome.predictions.argmax(axis=-1)
    return classification_scores(
        [labels[index] for index in truth], [labels[index] for index in predicted], labels, positive
    )


def score_baseline(
    data: dict[str, Labelled], labels: list[str], positive: str | None, seed: int
) -> "ClassificationScores":
    """The scores of the baseline on the test split, fitted on the training split."""
    from training.tuning.classification.scores import classification_scores
    from training.tuning.classification.tfidf_baseline import tfidf_baseline

    train, validation = ((data[split].texts, data[split].labels) for split in ("train", "validation"))
    predicted = tfidf_baseline(train, validation, data["test"].texts, seed)
    return classification_scores(data["test"].labels, predicted, labels, positive)


def table(scores: dict[str, "ClassificationScores"], positive: str | None) -> str:
    """The scores on the test split, beside those of the baseline, as lines of text. If the baseline is better, the last
    line tells what to change."""
    from training.tuning.classification.tfidf_baseline import NAME

    about = "mean over labels" if positive is None else positive
    test = scores["test"].accuracy
    lines = [f"test: {test.n} texts; accuracy of always the most common label: {test.chance:.1%}; F1 of: {about}"]
    for name, key in {"this model": "test", NAME: "baseline"}.items():
        if key in scores:
            row = scores[key]
            stderr = row.accuracy.stderr or 0.0
            lines.append(
                f"  {name:<20} accuracy {row.accuracy.value:.2%} ± {stderr:.2%}  F1 {row.f1:.4f}  "
                f"precision {row.precision:.4f}  recall {row.recall:.4f}"
            )
    if "baseline" in scores:
        gain = paired_difference(scores["test"].outcomes, scores["baseline"].outcomes)
        if gain.value > 0:
            lines.append(f"the baseline is better by {100 * gain.value:.1f} points (p = {gain.p:.2g}); {WHEN_BEHIND}")
    return "\n".join(lines)
