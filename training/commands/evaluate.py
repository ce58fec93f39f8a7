"""scratch evaluate: measure every model on text, instructions, preferences and tasks that none of them was trained on.

    scratch evaluate --config recipes/quickstart/evaluate.yaml
    scratch evaluate --models "{mine: DIR, gpt2: openai-community/gpt2}" --tasks "[small]" --output_dir runs/scores
    scratch evaluate --compare RESULTS [RESULTS ...] [--output_dir DIR]

Bits per byte of the validation split of prepared data and of any text; answers to held-out instructions: the share
that parses, defines the function asked for and ends by itself; answers to the questions of any file (chats): the share
that ends by itself, what rewards and a judge give them, bits per byte of the file's own; how often the better of two
answers is the likelier one, of prepared data and of any file (pairs); and lm-eval's tasks and suites. Writes
results.json, results.md, items/ with what came of every item, and tasks/ for the stock lm_eval program. --compare, on
folders of such results, judges the models on the items they share. See docs/evaluation.md.
"""

import argparse
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

import modeling_scratch  # noqa: F401  so that the Auto classes open our folders
from training.common.device import has_bf16, pick_device
from training.common.errors import UserError
from training.common.files import write_whole
from training.common.hub_names import is_hub_name
from training.common.recipe import option, parse, required
from training.common.stage import LANGUAGE_MODELS, Stage, check_stage, digest
from training.common.tables import as_text
from training.data.shards import check_tokenizer, open_shards
from training.eval.harness.local_data import LocalData, moved
from training.eval.harness.tasks import DEFAULT_SEED, Settings, Tasks
from training.eval.measures.answers import measure_answers
from training.eval.measures.chats import Chat, ChatConfig, open_chat
from training.eval.measures.items import Outcome, write_outcomes
from training.eval.measures.preferences import check_pairs, preference_accuracy
from training.eval.measures.records import read_pairs
from training.eval.measures.texts import measure_split, measure_text, read_texts
from training.eval.results.comparison import compare_folders, write_comparison
from training.eval.results.page import conditions, page
from training.eval.results.table import notes, results_table
from training.model_io.tokenizers import open_model_tokenizer
from training.model_io.weights import check_weights

RESULTS = "results.json"
UNCOUNTED = ("answers", "chat_samples", "task_parts")  # of a model's results, what the provenance does not repeat
LONGEST = 2048  # tokens of context, where the recipe says nothing: logits of more take memory without end


@dataclass
class Limits:
    answers: int = option(200, "held-out instructions to ask each model; 0 leaves the measure out")
    preferences: int = option(300, "held-out preference pairs to judge; 0 leaves the measure out")
    chats: int = option(200, "questions of each file in 'chats'")
    pairs: int = option(300, "pairs of each file in 'pairs'")
    tasks: int | None = option(None, "items of each task, the first ones; none for all")

    def __post_init__(self):
        above_zero = [limit for limit in (self.chats, self.pairs, self.tasks) if limit is not None]
        if min(self.answers, self.preferences) < 0 or min(above_zero) < 1:
            raise ValueError("'limits' are counts: 0 or more of answers and preferences, 1 or more of the others")


@dataclass
class EvaluateConfig:
    output_dir: str = required("folder for the results")
    models: dict = required("the rows of the table: name to model folder, or to a model's name on the Hub")
    data: str | None = option(
        None,
        "the output of `scratch prepare`: shards, instructions, preferences and tasks; none without these measures",
    )
    texts: dict[str, str] = option(dict, "bits per byte of any text: name to a file that `scratch prepare` reads")
    chats: dict[str, ChatConfig] = option(dict, "answers to the held-out questions of any file, by name")
    pairs: dict[str, str] = option(
        dict, "which of two answers is likelier: name to a file of any shape that `scratch dpo` takes"
    )
    tasks: list[str] = option(
        list,
        "suites (mmlu, hellaswag, arc, piqa, blimp, lambada, gsm8k, humaneval, small) and "
        "lm-eval tasks, those of tasks_dir or lm-eval's own",
    )
    tasks_dir: str = option("recipes/lm_eval", "folder of task files whose data `scratch prepare` writes")
    data_dir: str | None = option(
        None, "folder with the data of lm-eval's own tasks, instead of the Hub; docs/evaluation.md has its format"
    )
    num_fewshot: int | None = option(None, "solved examples before each item of a task; none for what the task says")
    fewshot_seeds: list[int] = option(list, "draw the examples anew with each of these: the mean and its spread")
    apply_chat_template: bool = option(False, "put the items of tasks as a turn of a conversation")
    limits: Limits = option(Limits, "how many held-out records to use")
    max_new_tokens: int = option(160, "tokens an answer may take")
    context: int | None = option(None, "tokens a model sees at once; none for what it was trained on, at most 2048")
    batch_size: int = option(4, "sequences a forward pass; answers, one position a pass, take 16 times as many")
    seed: int = option(0, "chooses the held-out records")

    def __post_init__(self):
        if not self.models or not all(isinstance(folder, str) for folder in self.models.values()):
            raise ValueError("'models' takes a name and a folder for each model, at least one")
        if self.max_new_tokens < 1 or self.batch_size < 1 or (self.context is not None and self.context < 1):
            raise ValueError("'max_new_tokens', 'batch_size' and 'context' are 1 or more")
        if not (self.data or self.texts or self.chats or self.pairs or self.tasks):
            raise ValueError("nothing to measure; give 'data', 'texts', 'chats', 'pairs' or 'tasks'")
        if not self.tasks:
            given = {
                "data_dir": self.data_dir,
                "num_fewshot": self.num_fewshot,
                "fewshot_seeds": self.fewshot_seeds,
                "apply_chat_template": self.apply_chat_template,
                "limits.tasks": self.limits.tasks,
            }
            for key, value in given.items():
                if value not in (None, False, []):
                    raise ValueError(f"'{key}' has no effect without 'tasks'")
        if self.num_fewshot is not None and self.num_fewshot < 0:
            raise ValueError("'num_fewshot' is a count, 0 or more")
        if len(set(self.fewshot_seeds)) < len(self.fewshot_seeds):
            raise ValueError("'fewshot_seeds' names a seed twice")


@dataclass
class Material:
    """What is read before any work: all that every model is measured on."""

    texts: dict[str, list[str]]
    instructions: list[dict[str, Any]]
    preferences: list[dict[str, Any]]
    chats: list[Chat]
    pairs: dict[str, list[dict[str, Any]]]
    local: LocalData | None
    tasks: Tasks | None


CONFIG = EvaluateConfig


def main(arguments: list[str]) -> None:
    if "--compare" in arguments:
        _compare(arguments)
        return
    config = parse(EvaluateConfig, arguments, __doc__)
    data = Path(config.data) if config.data else None
    if data:
        check_stage(data, "prepare", key="data")
    tokenizers = {name: _check_model(name, folder, config) for name, folder in config.models.items()}
    material = _read_material(config, data)
    for name, folder in config.models.items():
        context = _context(AutoConfig.from_pretrained(folder), config)
        for chat in material.chats:
            chat.check(tokenizers[name], context - config.max_new_tokens, folder, f"models.{name}")
        for pairs in material.pairs:
            check_pairs(material.pairs[pairs], pairs, tokenizers[name], context, folder, f"models.{name}")

    inputs = {name: _model_digest(folder, f"models.{name}") for name, folder in config.models.items()}
    inputs |= {"data": digest(data, "data")} if data else {}
    files = {f"texts.{name}": file for name, file in config.texts.items()}
    files |= {f"pairs.{name}": file for name, file in config.pairs.items()}
    for name, chat in config.chats.items():
        files |= {f"chats.{name}.file": chat.file} | ({f"chats.{name}.judge": chat.judge} if chat.judge else {})
    inputs |= {key: digest(file, key) for key, file in files.items()}
    if material.tasks:
        inputs |= {f"tasks.{name}": digest(path, "tasks_dir") for name, path in material.tasks.ours.items()}
    if material.local:
        inputs |= {str(path): digest(path, "data_dir") for path in sorted(material.local.used)}
    stage = Stage("evaluate", config.output_dir, config, inputs, arguments)
    if stage.is_current():
        return
    if material.tasks:
        material.tasks.open()
        for name, model in config.models.items():
            material.tasks.check_lengths(_context(AutoConfig.from_pretrained(model), config), f"models.{name}")
    folder = stage.begin()
    if material.tasks:
        material.tasks.write(folder / "tasks")

    device = pick_device()
    results = {"conditions": conditions(config, device), "models": {}}
    if (folder / RESULTS).is_file():  # left by an interrupted run of the same recipe on the same inputs
        results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    for name, model_folder in config.models.items():
        if name in results["models"]:
            print(f"evaluate: {name}: measured before the interruption, kept")
            continue
        print(f"evaluate: {name} ({model_folder})")
        row, outcomes = _measure(model_folder, config, material, device)
        write_outcomes(folder, name, outcomes)
        results["models"][name] = row
        write_whole(folder / RESULTS, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        stage.heartbeat()

    if material.tasks:
        moved(folder / "tasks", Path(config.output_dir) / "tasks")
    table, remarks = results_table(results["models"]), notes(results["models"])
    partial = material.tasks.partial if material.tasks else {}
    remarks += [
        f"{name}: {what} of its tasks have data, so that it is not the published measure"
        for name, what in partial.items()
    ]
    (folder / "results.md").write_text(page(table, remarks, results["conditions"]), encoding="utf-8")
    print(as_text(table), end="")
    print("".join(f"{remark}\n" for remark in remarks), end="")
    wrote = f"{len(results['models'])} models, table in results.md"
    if len(results["models"]) > 1:
        write_comparison(folder, compare_folders([folder]))
        wrote += ", item by item in comparison.md"
    figures = {
        name: {measure: value for measure, value in row.items() if measure not in UNCOUNTED}
        for name, row in results["models"].items()
    }
    stage.finish(figures, wrote=wrote)


def _compare(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="scratch evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--compare", nargs="+", metavar="RESULTS", help="folders that `scratch evaluate` wrote")
    parser.add_argument("--output_dir", default="runs/comparison", metavar="DIR", help="[runs/comparison]")
    options = parser.parse_args(arguments)
    for folder in options.compare:
        check_stage(folder, "evaluate", key="compare")
    comparison = compare_folders([Path(folder) for folder in options.compare])
    recipe = {"compare": options.compare, "output_dir": options.output_dir}
    inputs = {folder: digest(folder, "compare") for folder in options.compare}
    stage = Stage("compare", options.output_dir, recipe, inputs, arguments)
    print(write_comparison(stage.begin(), comparison))
    stage.finish({}, wrote="comparison.md, comparison.json, comparison.png")


def _check_model(name: str, folder: str, config: EvaluateConfig) -> PreTrainedTokenizerBase:
    """Refuse, before any work, a model that cannot be measured on these data. Returns its tokenizer.

    Raises:
        UserError: folder missing or of another stage, tokenizer not that of the data, too small an embedding, or wrong
            weights.
    """
    key = f"models.{name}"
    if is_hub_name(folder):
        if config.data:
            raise UserError(
                f"'{key}': {folder} has another tokenizer than the shards in {config.data}; leave 'data' out, and "
                "measure on 'texts' and 'tasks'"
            )
    else:
        # A missing folder is answered with the stage it is named after.
        check_stage(folder, *sorted(LANGUAGE_MODELS, key=lambda stage: stage != Path(folder).name), key=key)
        if not (Path(folder) / "config.json").is_file():
            raise UserError(f"'{key}': {folder} holds no model (no config.json)")
    tokenizer = open_model_tokenizer(folder, key)
    if config.data:
        try:
            check_tokenizer(config.data, folder)
        except UserError as error:
            what = str(error).removeprefix("'tokenizer': ")
            raise UserError(f"'{key}': {what}, or leave 'data' out and measure on 'texts'") from None
    if config.apply_chat_template and not tokenizer.chat_template:
        raise UserError(f"'apply_chat_template': {folder} ({key}) has no chat template; set it to false")
    check_weights(folder, key)
    return tokenizer


def _model_digest(model: str, key: str) -> str:
    return AutoConfig.from_pretrained(model)._commit_hash or model if is_hub_name(model) else digest(model, key)


def _read_material(config: EvaluateConfig, data: Path | None) -> Material:
    texts = {}
    for name, file in config.texts.items():
        if not Path(file).exists():
            raise UserError(f"'texts.{name}': no such file or folder: {file}")
        texts[name] = read_texts(file, f"texts.{name}")
    instructions = preferences = []
    if data:
        instructions = _read_records(data / "instructions" / "validation.jsonl", config.limits.answers, "answers")
        preferences = _read_records(data / "preferences" / "validation.jsonl", config.limits.preferences, "preferences")
    chats = [open_chat(name, chat, config.limits.chats, config.seed) for name, chat in config.chats.items()]
    pairs = {name: read_pairs(file, f"pairs.{name}") for name, file in config.pairs.items()}
    local = LocalData(Path(config.data_dir)) if config.data_dir else None
    settings = Settings(
        num_fewshot=config.num_fewshot,
        apply_chat_template=config.apply_chat_template,
        limit=config.limits.tasks,
        seeds=tuple(config.fewshot_seeds) or (DEFAULT_SEED,),
    )
    tasks = Tasks(config.tasks, Path(config.tasks_dir), data, local, settings) if config.tasks else None
    return Material(texts, instructions, preferences, chats, pairs, local, tasks)


def _read_records(path: Path, limit: int, key: str) -> list[dict[str, Any]]:
    if limit == 0:
        return []
    if not path.is_file() or path.stat().st_size == 0:
        raise UserError(f"'limits.{key}': {path} is missing or empty; set it to 0 to leave the measure out")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _context(model: PreTrainedConfig, config: EvaluateConfig) -> int:
    """Tokens a model is shown at once."""
    trained = getattr(model.get_text_config(), "max_position_embeddings", None) or LONGEST
    return min(trained, config.context or LONGEST)


def _measure(
    model_folder: str, config: EvaluateConfig, material: Material, device: torch.device
) -> tuple[dict[str, Any], list[Outcome]]:
    """All measures of one model with the seconds each took, and what came of every item."""
    model = AutoModelForCausalLM.from_pretrained(model_folder).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    context = _context(model.config, config)
    bf16 = has_bf16(device)
    row: dict[str, Any] = {"folder": model_folder, "parameters": model.num_parameters(), "seconds": {}}
    outcomes: list[Outcome] = []

    if config.data:
        with _timed(row, "bits_per_byte"):
            shards = open_shards(config.data, "validation")
            row["bits_per_byte"], found = measure_split(model, shards, context, config.batch_size, bf16)
            outcomes += found
    if material.texts:
        with _timed(row, "texts"):
            row["texts"] = {}
            for name, texts in material.texts.items():
                row["texts"][name], found = measure_text(
                    model, tokenizer, texts, name, context, config.batch_size, bf16
                )
                outcomes += found
    if material.instructions or material.chats:
        # Generating is bound by memory: weights and cache at half the size, not only the products as in autocast.
        dtype = torch.bfloat16 if bf16 else "auto"
        writer = AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype).to(device).eval()
    if material.instructions:
        with _timed(row, "answers"):
            row["answers"], found = measure_answers(
                writer,
                tokenizer,
                material.instructions,
                limit=config.limits.answers,
                max_new_tokens=config.max_new_tokens,
                context=context,
                batch_size=16 * config.batch_size,
                seed=config.seed,
            )
            outcomes += found
    if material.preferences:
        with _timed(row, "preferences"):
            row["preferences"], found = preference_accuracy(
                model,
                tokenizer,
                material.preferences,
                limit=config.limits.preferences,
                context=context,
                batch_size=config.batch_size,
                seed=config.seed,
                bf16=bf16,
            )
            outcomes += found
    if material.chats:
        with _timed(row, "chats"):
            row["chats"], row["chat_samples"] = {}, {}
            for chat in material.chats:
                row["chats"][chat.name], row["chat_samples"][chat.name], found = chat.measure(
                    model, writer, tokenizer, config.max_new_tokens, context, config.batch_size, bf16
                )
                outcomes += found
    if material.pairs:
        with _timed(row, "pairs"):
            row["pairs"] = {}
            for name, pairs in material.pairs.items():
                row["pairs"][name], found = preference_accuracy(
                    model,
                    tokenizer,
                    pairs,
                    limit=config.limits.pairs,
                    context=context,
                    batch_size=config.batch_size,
                    seed=config.seed,
                    bf16=bf16,
                    measure=f"pairs: {name}",
                )
                outcomes += found
    if config.tasks:
        with _timed(row, "tasks"):
            row["tasks"] = {}
            if material.tasks:
                scores = material.tasks.score(model, tokenizer, config.batch_size, context)
                row["tasks"] |= scores.figures
                row["task_parts"] = scores.parts
                outcomes += scores.outcomes
    return row, outcomes


@contextlib.contextmanager
def _timed(row: dict[str, Any], measure: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    row["seconds"][measure] = round(time.monotonic() - started, 1)
