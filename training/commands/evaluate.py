"""scratch evaluate: evaluate models on held-out text, questions, preferences and tasks.

    scratch evaluate --config recipes/quickstart/evaluate.yaml
    scratch evaluate --models "{mine: DIR, gpt2: openai-community/gpt2}" --tasks "[small]" --output_dir runs/scores
    scratch evaluate --compare RESULTS [RESULTS ...] [--output_dir DIR]

Measures bits per byte of prepared data and of any text; generated answers to the questions of any file: whether they
end, their rewards, and bits per byte of the file's own answers; preference accuracy on pairs; and lm-eval's tasks and
suites. Writes results.json, results.md, items/ with the outcome of every item, and tasks/ for the stock lm_eval
program. --compare runs a paired test on the items that several models have in common. See docs/evaluation.md.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.common.errors import UserError
from training.common.tables import as_text
from training.eval.measures.config import EvaluateConfig
from training.machine.garbage import lasting_objects
from training.model_io.model_kinds import LANGUAGE_MODEL, check_model_kind
from training.stages.flags import has_flag, parse
from training.stages.provenance import LANGUAGE_MODELS, check_stage, digest
from training.stages.recipe import PathText, option, required
from training.stages.stage import Stage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from training.eval.measures.figures import ItemOutcome
    from training.eval.measures.measure import Candidate, Measure
    from training.eval.results.results_file import ModelResults, Results

CONFIG = EvaluateConfig


@dataclass
class CompareConfig:
    """Options of `scratch evaluate --compare`."""

    compare: list[PathText] = required("folders that `scratch evaluate` wrote", several=True)
    output_dir: PathText = option("runs/comparison", "folder for the comparison")


def inputs(config: EvaluateConfig) -> dict[str, str] | None:
    """Digests of what the results depend on, as `input_digests` has them; None if only lm-eval or the Hub can tell."""
    from training.common.hub_names import is_hub_name
    from training.eval.harness.suites import expand
    from training.eval.harness.task_files import local_tasks

    if config.data_dir or any(map(is_hub_name, config.models.values())):
        return None
    paths = {f"models.{name}": folder for name, folder in config.models.items()}
    paths |= {"data": config.data} if config.data else {}
    for kind, files in (("texts", config.texts), ("pairs", config.pairs)):
        paths |= {f"{kind}.{name}": file for name, file in files.items()}
    for name, chat in config.chats.items():
        paths[f"chats.{name}.file"] = chat.file
        paths |= {f"chats.{name}.reward_model": chat.reward_model} if chat.reward_model else {}
    own = local_tasks(Path(config.tasks_dir)) if config.tasks else {}
    paths |= {f"tasks.{name}": str(own[name]) for name in expand(config.tasks) if name in own}
    return {key: digest(path, key) for key, path in paths.items()}


def main(arguments: list[str]) -> None:
    """Evaluate the models of a recipe.

    1. Check every model against the recipe: folder, weights, tokenizer.
    2. Read and check the held-out records of every requested measure, and whether each model can be measured on them.
    3. Stop if the output is up to date.
    4. Load the tasks, and write the files that repeat them.
    5. Measure each model that has no results yet, and save its figures and item outcomes.
    6. Write and print the table, and compare the models item by item.

    Raises:
        UserError: anything that would make a later step fail, before the output folder is created.
    """
    if has_flag(arguments, "compare") and not has_flag(arguments, "help"):
        compare(arguments)
        return
    config = parse(EvaluateConfig, arguments, __doc__)
    with lasting_objects():
        candidates = check_models(config)
        measures = prepare_measures(config)
    for measure in measures:
        for candidate in candidates.values():
            measure.check(candidate)
    stage = Stage("evaluate", config.output_dir, config, input_digests(config, measures), arguments)
    if stage.is_current():
        return
    for measure in measures:
        measure.load(list(candidates.values()))
    folder = stage.begin()
    for measure in measures:
        measure.write(folder, stage.output_dir)
    results = open_results(folder, measures, config.seed)
    for name, candidate in candidates.items():
        if name in results.models:
            print(f"evaluate: {name}: already measured before the interruption")
            continue
        print(f"evaluate: {name} ({candidate.folder})")
        measure_and_save(folder, name, candidate, config, measures, results)
        stage.heartbeat()
    wrote = write_tables(folder, results, measures)
    stage.finish({name: model.figures_to_json() for name, model in results.models.items()}, wrote=wrote)


def check_models(config: EvaluateConfig) -> dict[str, "Candidate"]:
    """The models of the recipe by name, each with its tokenizer and context.

    Raises:
        UserError: see `check_model`, or a folder for `data` that `scratch prepare` did not write.
    """
    from transformers import AutoConfig

    from training.eval.measures.measure import Candidate
    from training.model_io.context_length import DEFAULT_CONTEXT, context_length

    if config.data:
        check_stage(config.data, "prepare", key="data")
    candidates = {}
    for name, folder in config.models.items():
        tokenizer = check_model(f"models.{name}", folder, config)
        trained = context_length(AutoConfig.from_pretrained(folder)) or DEFAULT_CONTEXT
        context = min(trained, config.context or DEFAULT_CONTEXT)
        candidates[name] = Candidate(f"models.{name}", folder, tokenizer, context)
    return candidates


def check_model(key: str, folder: str, config: EvaluateConfig) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model, after checking that the model can be measured.

    Raises:
        UserError: folder missing or of another stage, another tokenizer than that of the data, too small an embedding,
            wrong weights, or no chat template where one is required.
    """
    from training.common.hub_names import is_hub_name
    from training.data.shards import check_tokenizer
    from training.model_io.tokenizers import open_model_tokenizer
    from training.model_io.weights import check_weights

    if is_hub_name(folder):
        if config.data:
            raise UserError(
                f"'{key}': the tokenizer of {folder} differs from the one used for {config.data}; remove 'data', and "
                "measure on 'texts' and 'tasks'"
            )
    else:
        # If the folder is missing, the error suggests the stage that it is named after.
        stages = sorted(LANGUAGE_MODELS, key=lambda stage: stage != Path(folder).name)
        check_model_kind(folder, LANGUAGE_MODEL, *stages, key=key)
    tokenizer = open_model_tokenizer(folder, key)
    if config.data:
        try:
            check_tokenizer(config.data, folder)
        except UserError as error:
            problem = str(error).removeprefix("'tokenizer': ")
            raise UserError(f"'{key}': {problem}, or remove 'data' and measure on 'texts'") from None
    if config.apply_chat_template and not tokenizer.chat_template:
        raise UserError(f"'apply_chat_template': {folder} ({key}) has no chat template; set it to false")
    check_weights(folder, key)
    return tokenizer


def prepare_measures(config: EvaluateConfig) -> list["Measure"]:
    """The measures that the recipe requests, with their held-out records read and checked."""
    from training.eval.harness.tasks import Tasks
    from training.eval.measures.bits_per_byte import BitsPerByte
    from training.eval.measures.chats import Chats
    from training.eval.measures.pairs import Pairs
    from training.eval.measures.texts import Texts

    available = (BitsPerByte, Texts, Chats, Pairs, Tasks)
    measures = [measure(config) for measure in available if measure.is_requested(config)]
    for measure in measures:
        measure.prepare()
    return measures


def input_digests(config: EvaluateConfig, measures: list["Measure"]) -> dict[str, str]:
    """Digests of everything that the results depend on, by the recipe key that names it."""
    digests = {f"models.{name}": model_digest(folder, f"models.{name}") for name, folder in config.models.items()}
    for measure in measures:
        digests |= {key: digest(path, key) for key, path in measure.inputs().items()}
    return digests


def model_digest(model: str, key: str) -> str:
    """The digest of a model folder; for a model on the Hub, the commit of the copy that is used."""
    from huggingface_hub import hf_hub_download

    from training.common.hub_names import is_hub_name

    if is_hub_name(model):
        return Path(hf_hub_download(model, "config.json")).parent.name  # a snapshot's folder is named by its commit
    return digest(model, key)


def open_results(folder: Path, measures: list["Measure"], seed: int) -> "Results":
    """The results of an interrupted run of the same recipe on the same inputs; without one, empty results."""
    from training.common.device import pick_device
    from training.eval.results.page import conditions
    from training.eval.results.results_file import RESULTS, Results

    if (folder / RESULTS).is_file():
        try:
            return Results.read(folder)
        except ValueError as error:
            raise UserError(f"'output_dir': {error}; delete {folder} to start over") from None
    return Results(conditions(measures, pick_device(), seed))


def measure_and_save(
    folder: Path,
    name: str,
    candidate: "Candidate",
    config: EvaluateConfig,
    measures: list["Measure"],
    results: "Results",
) -> None:
    """Measure one model, and write its item outcomes and the results so far."""
    from training.eval.results.items import write_outcomes

    model, outcomes = measure_model(candidate, config, measures)
    write_outcomes(folder, name, outcomes)
    results.models[name] = model
    results.write(folder)


def measure_model(
    candidate: "Candidate", config: EvaluateConfig, measures: list["Measure"]
) -> tuple["ModelResults", list["ItemOutcome"]]:
    """The results of one model under all measures, with the seconds each took, and the outcome of every item."""
    from transformers import AutoModelForCausalLM

    from training.common.device import has_bf16, pick_device
    from training.eval.measures.figures import MeasureResult
    from training.eval.measures.measure import LoadedModel
    from training.eval.results.results_file import ModelResults
    from training.machine.threads import follow_load_in

    device = pick_device()
    network = AutoModelForCausalLM.from_pretrained(candidate.folder).to(device).eval()
    follow_load_in(network)
    loaded = LoadedModel(**vars(candidate), model=network, batch_size=config.batch_size, bf16=has_bf16(device))
    total, seconds = MeasureResult(), {}
    for measure in measures:
        with timed(seconds, measure.kind):
            total.add(measure.run(loaded))
    model = ModelResults(
        candidate.folder, network.num_parameters(), seconds, total.figures, total.samples, total.subtasks
    )
    return model, total.outcomes


@contextlib.contextmanager
def timed(seconds: dict[str, float], kind: str) -> Iterator[None]:
    """Record the seconds that a measure takes."""
    started = time.monotonic()
    yield
    seconds[kind] = round(time.monotonic() - started, 1)


def write_tables(folder: Path, results: "Results", measures: list["Measure"]) -> str:
    """Write results.md, print its table and notes, and compare several models item by item.

    Returns:
        What was written, in a few words.
    """
    from training.eval.results.comparison import compare_folders, write_comparison
    from training.eval.results.page import page
    from training.eval.results.table import notes, results_table, subtask_tables

    table, subtasks = results_table(results.models), subtask_tables(results.models)
    lines = [*notes(results.models), *(remark for measure in measures for remark in measure.remarks())]
    (folder / "results.md").write_text(page(table, subtasks, lines, results.conditions), encoding="utf-8")
    print(as_text(table), end="")
    print("".join(f"{line}\n" for line in lines), end="")
    wrote = f"{len(results.models)} models, table in results.md"
    if len(results.models) > 1:
        write_comparison(folder, compare_folders([folder]))
        wrote += ", item by item in comparison.md"
    return wrote


def compare(arguments: list[str]) -> None:
    """Compare the models in folders of results, and write and print the tables."""
    config = parse(CompareConfig, arguments, __doc__, recipe=False)

    from training.eval.results.comparison import compare_folders, write_comparison

    for folder in config.compare:
        check_stage(folder, "evaluate", key="compare")
    comparison = compare_folders([Path(folder) for folder in config.compare])
    inputs = {folder: digest(folder, "compare") for folder in config.compare}
    stage = Stage("compare", config.output_dir, config, inputs, arguments)
    print(write_comparison(stage.begin(replace=True), comparison))
    stage.finish({}, wrote="comparison.md, comparison.json, comparison.png")
