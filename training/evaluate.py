"""scratch evaluate: measure every model on text, instructions and preferences that none of them was trained on.

Four measures a model: bits per byte of the validation split; the share of answers to held-out instructions that
parse, define the function asked for and end by themselves; how often the better of two answers is the likelier one;
and lm-eval tasks. Writes results.json, results.md, and tasks/ for the stock lm_eval program.
"""

import contextlib
import importlib.metadata
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import modeling_scratch  # noqa: F401  so that the Auto classes open our folders
from training.data.shards import check_tokenizer, open_shards
from training.engine.device import has_bf16, pick_device
from training.engine.stage import Stage, check_stage, digest
from training.engine.vocabulary import open_model_tokenizer
from training.engine.weights import check_weights
from training.errors import UserError
from training.eval.answers import measure_answers
from training.eval.bits_per_byte import bits_per_byte
from training.eval.harness import check_tasks, copy_tasks, score_tasks
from training.eval.preferences import preference_accuracy
from training.eval.table import as_markdown, as_text, results_table
from training.recipe import option, parse, required

RESULTS = "results.json"
MODEL_STAGES = ("pretrain", "sft", "dpo", "grpo", "export", "import")


@dataclass
class Limits:
    answers: int = option(200, "held-out instructions to ask each model; 0 leaves the measure out")
    preferences: int = option(300, "held-out preference pairs to judge; 0 leaves the measure out")

    def __post_init__(self):
        if self.answers < 0 or self.preferences < 0:
            raise ValueError("'limits' are counts, 0 or more")


@dataclass
class EvaluateConfig:
    output_dir: str = required("folder for the results")
    models: dict = required("the rows of the table: name to model folder")
    data: str = required("the output of `scratch prepare`: shards, instructions, preferences and tasks")
    tasks: list[str] = option(list, "lm-eval tasks, those of tasks_dir or lm-eval's own")
    tasks_dir: str = option("recipes/lm_eval", "folder of task files whose data `scratch prepare` writes")
    limits: Limits = option(Limits, "how many held-out records to use")
    max_new_tokens: int = option(160, "tokens an answer may take")
    batch_size: int = option(4, "sequences a forward pass; answers, one position a pass, take 16 times as many")
    seed: int = option(0, "chooses the held-out records")

    def __post_init__(self):
        if not self.models or not all(isinstance(folder, str) for folder in self.models.values()):
            raise ValueError("'models' takes a name and a folder for each model, at least one")
        if self.max_new_tokens < 1 or self.batch_size < 1:
            raise ValueError("'max_new_tokens' and 'batch_size' are 1 or more")


def main(arguments: list[str]) -> None:
    config = parse(EvaluateConfig, arguments, __doc__)
    data, tasks_dir = Path(config.data), Path(config.tasks_dir)
    check_stage(data, "prepare", key="data")
    for name, folder in config.models.items():
        _check_model(name, Path(folder), data)
    instructions = _read_records(data / "instructions" / "validation.jsonl", config.limits.answers, "answers")
    preferences = _read_records(data / "preferences" / "validation.jsonl", config.limits.preferences, "preferences")
    check_tasks(config.tasks, tasks_dir, data)

    inputs = {name: digest(folder, f"models.{name}") for name, folder in config.models.items()}
    inputs |= {"data": digest(data, "data")}
    if config.tasks:
        inputs["tasks_dir"] = digest(tasks_dir, "tasks_dir")
    stage = Stage("evaluate", config.output_dir, config, inputs, arguments)
    if stage.is_current():
        return
    folder = stage.begin()
    if config.tasks:
        copy_tasks(tasks_dir, data, folder / "tasks")

    device = pick_device()
    results = {"conditions": _conditions(config, device), "models": {}}
    if (folder / RESULTS).is_file():  # left by an interrupted run of the same recipe on the same inputs
        results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    for name, model_folder in config.models.items():
        if name in results["models"]:
            print(f"evaluate: {name}: measured before the interruption, kept")
            continue
        print(f"evaluate: {name} ({model_folder})")
        results["models"][name] = _measure(model_folder, config, folder, device, instructions, preferences)
        _write_whole(folder / RESULTS, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        stage.heartbeat()

    table = results_table(results["models"])
    (folder / "results.md").write_text(_page(table, results["conditions"]), encoding="utf-8")
    print(as_text(table), end="")
    figures = {
        name: {measure: value for measure, value in row.items() if measure != "answers"}
        for name, row in results["models"].items()
    }
    stage.finish(figures, wrote=f"{len(figures)} models, table in results.md")


def _check_model(name: str, folder: Path, data: Path) -> None:
    """Refuse, before any work, a model that cannot be measured on these data.

    Raises:
        UserError: folder missing or of another stage, tokenizer not that of the data, too small an embedding, or wrong
            weights.
    """
    key = f"models.{name}"
    # A missing folder is answered with the stage it is named after.
    check_stage(folder, *sorted(MODEL_STAGES, key=lambda stage: stage != folder.name), key=key)
    if not (folder / "config.json").is_file():
        raise UserError(f"'{key}': {folder} holds no model (no config.json)")
    open_model_tokenizer(folder, key)
    check_tokenizer(data, folder)
    check_weights(str(folder), key)


def _read_records(path: Path, limit: int, key: str) -> list[dict[str, Any]]:
    if limit == 0:
        return []
    if not path.is_file() or path.stat().st_size == 0:
        raise UserError(f"'limits.{key}': {path} is missing or empty; set it to 0 to leave the measure out")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _measure(
    model_folder: str,
    config: EvaluateConfig,
    folder: Path,
    device: torch.device,
    instructions: list[dict[str, Any]],
    preferences: list[dict[str, Any]],
) -> dict[str, Any]:
    """All measures of one model, and the seconds each took."""
    model = AutoModelForCausalLM.from_pretrained(model_folder).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    context = model.config.max_position_embeddings
    bf16 = has_bf16(device)
    row: dict[str, Any] = {"folder": model_folder, "parameters": model.num_parameters(), "seconds": {}}

    with _timed(row, "bits_per_byte"):
        shards = open_shards(config.data, "validation")
        row["bits_per_byte"] = bits_per_byte(
            model,
            shards.tokens,
            text_bytes=shards.text_bytes,
            end_of_text=int(shards.tokens[-1]),  # every document ends with it
            context=context,
            batch_size=config.batch_size,
            bf16=bf16,
        )
    if instructions:
        with _timed(row, "answers"):
            # Generating is bound by memory: weights and cache at half the size, not only the products as in autocast.
            dtype = torch.bfloat16 if bf16 else "auto"
            writer = AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype).to(device).eval()
            row["answers"] = measure_answers(
                writer,
                tokenizer,
                instructions,
                limit=config.limits.answers,
                max_new_tokens=config.max_new_tokens,
                context=context,
                batch_size=16 * config.batch_size,
                seed=config.seed,
            )
    if preferences:
        with _timed(row, "preferences"):
            row["preferences"] = preference_accuracy(
                model,
                tokenizer,
                preferences,
                limit=config.limits.preferences,
                context=context,
                batch_size=config.batch_size,
                seed=config.seed,
                bf16=bf16,
            )
    if config.tasks:
        with _timed(row, "tasks"):
            row["tasks"] = score_tasks(model, tokenizer, config.tasks, folder / "tasks", config.batch_size)
    return row


@contextlib.contextmanager
def _timed(row: dict[str, Any], measure: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    row["seconds"][measure] = round(time.monotonic() - started, 1)


def _conditions(config: EvaluateConfig, device: torch.device) -> dict[str, Any]:
    """What a reader needs to compare the figures with others; counts stand beside each figure."""
    packages = ["torch", "transformers", *(["lm_eval"] if config.tasks else [])]
    return {
        "data": config.data,
        "device": device.type,
        "precision": "bfloat16 autocast (bits per byte, preferences), bfloat16 (answers), the model's own (tasks)"
        if has_bf16(device)
        else "the model's own",
        "bits_per_byte": "the whole validation split as one stream, in windows of the trained context without overlap; "
        "every token scored once, the first after <|endoftext|>; <|endoftext|> tokens cost bits and count no bytes",
        "answers": f"greedy, up to {config.max_new_tokens} new tokens, judged by reading, never executed",
        "preferences": "total log-probability of the answer, <|im_end|> included",
        "errors": "one standard error of the sample of questions; training was not repeated",
        "seed": config.seed,
        "versions": {package: importlib.metadata.version(package) for package in packages},
    }


def _page(table: list[list[str]], conditions: dict[str, Any]) -> str:
    notes = "".join(f"- {key.replace('_', ' ')}: {value}\n" for key, value in conditions.items() if key != "versions")
    versions = ", ".join(f"{package} {version}" for package, version in conditions["versions"].items())
    return f"# Evaluation\n\n{as_markdown(table)}\n{notes}- versions: {versions}\n"


def _write_whole(path: Path, text: str) -> None:
    """Write beside and rename, so that an interruption never leaves half a file to resume from."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    beside.rename(path)
