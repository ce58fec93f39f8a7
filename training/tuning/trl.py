"""A TRL trainer as a stage: the recipe has TRL's own field names, the output is a plain model directory.

The stock program runs the same recipe (`trl sft --config sft.yaml`). What we add: unknown keys and missing files are
found before anything is loaded, data of other shapes are converted, settings that depend on the processor are filled
in, an interrupted run goes on, and the result (LoRA merged in, the adapter beside it) is saved as every other model of
ours.
"""

import argparse
import dataclasses
import json
import shutil
import tempfile
import typing
import warnings
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml

from training.common.errors import UserError, one_line
from training.common.hub_names import is_hub_name
from training.common.metrics import METRICS
from training.common.recipe import apply_overrides, build, check_scalar, nearest, read_yaml, split_overrides
from training.common.stage import Stage, check_stage, digest, model_digest
from training.tuning.adapters import check_quantization, is_adapter, merge_adapter, save_adapter
from training.tuning.dataset_formats import Shape, columns_of, take_shape, text


@dataclasses.dataclass
class TrlRecipe:
    """A recipe as TRL sees it, and as written."""

    script: Any
    training: Any
    model: Any
    datasets: Any
    values: dict[str, Any]
    where: str


CAUSAL_LM = "transformers:AutoModelForCausalLM"


def parse_trl(
    config_class: str, arguments: list[str], usage: str, script_class: str = "trl:ScriptArguments"
) -> TrlRecipe:
    """Parse `--config FILE` and `--key value` overrides into TRL's dataclasses.

    Args:
        config_class: the trainer's configuration, such as `trl:SFTConfig`.
        usage: the stage's docstring, shown above TRL's options by `--help`.
        script_class: the arguments of the stock program that are neither the trainer's nor the model's.

    Raises:
        UserError: an unknown key (with the nearest right one), a wrong type, or settings that contradict each other.
    """
    import trl
    from trl.scripts.utils import DatasetConfig

    from training.common.device import has_bf16, pick_device

    # TRL calls options of transformers by names that a later release will drop.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    classes = (resolve_name(script_class), resolve_name(config_class), trl.ModelConfig, trl.DatasetMixtureConfig)
    parser = trl.TrlParser(classes, usage=argparse.SUPPRESS, allow_abbrev=False)
    if "--help" in arguments or "-h" in arguments:
        print(f"{usage.strip()}\n\nAll of TRL's fields, as keys of the recipe or as --key value:\n")
        parser.print_help()
        raise SystemExit(0)
    overrides = split_overrides(arguments)
    path = overrides.pop("config", None)
    where = path or "command line"
    values = apply_overrides(read_yaml(path) if path else {}, overrides)

    hints = {name: hint for cls in classes for name, hint in typing.get_type_hints(cls).items()}
    fields = {field.name for cls in classes for field in dataclasses.fields(cls) if field.init}
    for key, value in values.items():
        if key not in fields:
            raise UserError(f"{where}: unknown key '{key}'; {nearest(str(key), fields)}")
        values[key] = check_scalar(value, hints[key], where, key)
    for key in ("model_name_or_path", "output_dir"):
        if not values.get(key):
            raise UserError(f"{where}: '{key}' is missing")
    datasets = values.get("datasets") or []
    if not datasets and not values.get("dataset_name"):
        raise UserError(f"{where}: 'datasets' is missing (a list, each with a path such as json, and data_files)")
    if not isinstance(datasets, list):
        raise UserError(f"{where}: 'datasets' takes a list, not {datasets!r}")
    for dataset in datasets:
        build(DatasetConfig, dataset, where, prefix="datasets.")

    device = pick_device()
    filled = {"use_cpu": device.type == "cpu", "bf16": has_bf16(device), "report_to": "none"} | values

    def refuse(message: str) -> typing.NoReturn:
        raise UserError(f"{where}: {message}")

    parser.error = refuse
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(filled, file)
        file.flush()
        try:
            parsed = parser.parse_args_and_config(["--config", file.name])
        except ValueError as error:
            raise UserError(f"{where}: {' '.join(str(error).split())}") from None
    return TrlRecipe(*parsed, values, where)


def train(
    name: str,
    trainer_class: str,
    config_class: str,
    shapes: tuple[Shape, ...],
    arguments: list[str],
    usage: str,
    preview: Callable[[Any], None] | None = None,
    script_class: str = "trl:ScriptArguments",
    model_class: str = CAUSAL_LM,
) -> None:
    """The whole stage: parse, train with TRL, merge adapters, save. Every process calls this.

    A trainer of ours may have a class method `options(recipe, columns)`, more arguments of its own from the recipe and
    the columns of the data, and a method `conclude(folder)`, called in every process when the model is saved, which
    returns figures for the provenance and the names of files that it wrote.

    Args:
        name: the verb.
        trainer_class, config_class: such as `trl:SFTTrainer` and `trl:SFTConfig`.
        shapes: of the data that the trainer takes.
        preview: given the trainer, ready to train, it is called instead, and nothing is written.
        script_class: see `parse_trl`.
        model_class: the Auto class that opens the model.
    """
    recipe = parse_trl(config_class, arguments, usage, script_class)
    if model_class != CAUSAL_LM and "lora_task_type" not in recipe.values:
        recipe.model.lora_task_type = "SEQ_CLS"  # PEFT then trains the new scores too
    start, training = recipe.model.model_name_or_path, recipe.training
    check_quantization(recipe.model, recipe.where)
    stage = Stage(name, training.output_dir, recipe.values, inputs_of(recipe), arguments)
    if not preview and stage.is_current():
        return

    from training.common.processes import end_training
    from training.model_io.model_folder import save_model, save_tokenizer
    from training.plots.losses import plot_losses

    with tempfile.TemporaryDirectory() as nowhere:  # a mistake found while the trainer is made leaves nothing behind
        training.output_dir = nowhere
        trainer = build_trainer(name, trainer_class, recipe, shapes, model_class)
        if preview:
            preview(trainer)
            return
    with training.main_process_first(local=False):
        folder = stage.begin() if training.process_index == 0 else stage.folder
        (folder / "trainer").mkdir(exist_ok=True)
    training.output_dir = str(folder / "trainer")
    checkpoint = newest_checkpoint(folder / "trainer", training.world_size)
    if checkpoint and trainer.is_world_process_zero():
        print(f"{name}: going on from {checkpoint}")
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        if trainer.is_world_process_zero():
            stage.heartbeat()

    trained, state_dict = trainer.accelerator.unwrap_model(trainer.model), None
    wrote = "model"
    if recipe.model.use_peft:
        if trainer.is_world_process_zero():
            save_adapter(trained, start, folder / "adapter")
            wrote = "model with the adapter merged in, adapter"
            trained = _merged(trained, recipe, folder / "adapter", model_class)
    else:  # wherever the engine keeps the weights
        state_dict = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        save_model(trained, start, folder, state_dict)
        if any(getattr(training, key, None) for key in ("chat_template_path", "eos_token", "pad_token")):
            save_tokenizer(trainer.processing_class, folder)
        history = [record for record in trainer.state.log_history if "loss" in record]
        lines = (json.dumps(record) + "\n" for record in trainer.state.log_history)
        (folder / METRICS).write_text("".join(lines))
        plot_losses(history, folder / "loss.png", name, unit="step")
    # What may fail yet does not cost the weights.
    figures, files = trainer.conclude(folder) if hasattr(trainer, "conclude") else ({}, [])
    if trainer.is_world_process_zero():
        figures |= {"steps": trainer.state.global_step, "loss": history[-1]["loss"] if history else None}
        shutil.rmtree(folder / "trainer")  # its checkpoints, of use only to go on
        stage.finish(figures, ", ".join([wrote, METRICS, "loss.png", *files]))
    end_training(trainer.accelerator)


def inputs_of(recipe: TrlRecipe) -> dict[str, str]:
    """All that a recipe names, files and models, by their digests.

    Raises:
        UserError: one that is missing, empty, or of the wrong kind.
    """
    start = recipe.model.model_name_or_path
    if is_adapter(start):
        raise UserError(
            f"'model_name_or_path': {start} is an adapter; give the model it was merged into, or merge it with "
            "scratch export --model BASE --adapter ADAPTER"
        )
    inputs = {"model": model_digest(start, "model_name_or_path")}
    judge = recipe.values.get("reward_model_name_or_path")
    if judge and not is_hub_name(judge):
        check_stage(judge, "reward", key="reward_model_name_or_path")
        inputs["reward_model"] = digest(judge, "reward_model_name_or_path")
    template = recipe.values.get("chat_template_path")
    if template and template.endswith((".jinja", ".j2")):  # otherwise a model that has one
        inputs[template] = digest(template, "chat_template_path")
    for file in data_files(recipe.values.get("datasets") or []):
        inputs[file] = digest(file, "datasets.data_files")
        if Path(file).stat().st_size == 0:
            raise UserError(f"'datasets.data_files': {file} is empty; run the stage that writes it again")
    named = recipe.values.get("dataset_name")
    if named and Path(named).exists():  # and not a name on the Hub
        inputs[named] = digest(named, "dataset_name")
    return inputs


def build_trainer(
    name: str, trainer_class: str, recipe: TrlRecipe, shapes: tuple[Shape, ...], model_class: str = CAUSAL_LM
) -> Any:
    """The trainer with its model, tokenizer and data, ready to train.

    Raises:
        UserError: one of them cannot be had, or they do not go together.
    """
    import trl
    from jinja2 import TemplateError
    from transformers import set_seed

    from training.model_io.tokenizers import open_tokenizer
    from training.tuning.epoch_order import OrderByEpoch

    script, training = recipe.script, recipe.training
    set_seed(training.seed)  # `test_split_size` draws from numpy's generator
    with training.main_process_first(local=False):
        data = load_data(recipe)
        split, told = take_shape(data[script.dataset_train_split], shapes_of(recipe, shapes), recipe.where)
        held_out = None
        if training.eval_strategy != "no":
            held_out, _ = take_shape(data[script.dataset_test_split], shapes_of(recipe, shapes), recipe.where)
    print(f"{name}: data taken as {told}")
    trainer_type = resolve_name(trainer_class)
    options = trainer_type.options(recipe, columns_of(split)) if hasattr(trainer_type, "options") else {}
    tokenizer = open_tokenizer(recipe.model.model_name_or_path, "model_name_or_path", recipe.model.model_revision)
    try:
        trainer = trainer_type(
            model=open_model(recipe, tokenizer, model_class),
            args=training,
            train_dataset=split,
            eval_dataset=held_out,
            processing_class=tokenizer,
            peft_config=trl.get_peft_config(recipe.model),
            **options,
        )
    except (ValueError, ImportError, TemplateError) as error:
        raise UserError(f"{recipe.where}: {one_line(error)}") from None
    trainer.add_callback(OrderByEpoch())
    return trainer


def open_model(recipe: TrlRecipe, tokenizer: Any, model_class: str = CAUSAL_LM) -> Any:
    """The model to start from, which has a row for each token.

    Raises:
        UserError: none there, damaged weights, or too small an embedding.
    """
    import trl

    from training.model_io.tokenizers import check_vocabulary
    from training.model_io.weights import check_weights

    start, revision = recipe.model.model_name_or_path, recipe.model.model_revision
    try:
        check_weights(start, "model_name_or_path", recipe.training.trust_remote_code, revision)
        model = _load(
            recipe,
            model_class,
            attn_implementation=recipe.model.attn_implementation,
            quantization_config=trl.get_quantization_config(recipe.model),
        )
    except (OSError, ValueError) as error:
        raise UserError(f"'model_name_or_path': no model at {start} ({one_line(error)})") from None
    check_vocabulary(tokenizer, model.config, start, "model_name_or_path")
    return model


def _load(recipe: TrlRecipe, model_class: str, **options: Any) -> Any:
    from training.model_io.model_folder import quiet_loading

    if model_class != CAUSAL_LM:
        options["num_labels"] = 1
    with quiet_loading():  # that scores are new; `check_weights` has looked for all else
        return resolve_name(model_class).from_pretrained(
            recipe.model.model_name_or_path,
            revision=recipe.model.model_revision,
            dtype=recipe.model.dtype or "float32",
            trust_remote_code=recipe.training.trust_remote_code,
            **options,
        )


def _merged(model: Any, recipe: TrlRecipe, adapter: Path, model_class: str) -> Any:
    """The trained adapter in the weights of the base; of a quantised base in those that it had before."""
    if recipe.model.load_in_4bit or recipe.model.load_in_8bit:
        return merge_adapter(_load(recipe, model_class), adapter, "adapter")
    return model.merge_and_unload()


def load_data(recipe: TrlRecipe) -> Any:
    """The splits that a recipe names.

    Raises:
        UserError: data that cannot be read, or lack a split.
    """
    import datasets
    import trl

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what goes wrong is said here, in one line
    script, mixture = recipe.script, recipe.datasets
    try:
        if mixture.datasets:
            data = trl.get_dataset(mixture)
        else:
            data = datasets.load_dataset(
                script.dataset_name, name=script.dataset_config, streaming=script.dataset_streaming
            )
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        cause = error.__cause__ or error
        raise UserError(f"{recipe.where}: 'datasets' cannot be read ({one_line(cause)})") from cause
    evaluated = [script.dataset_test_split] if recipe.training.eval_strategy != "no" else []
    for split in (script.dataset_train_split, *evaluated):
        if split not in data:
            raise UserError(f"{recipe.where}: the data have no split '{split}'; {nearest(split, data)}")
    return data


def shapes_of(recipe: TrlRecipe, shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """With plain text in the column that the recipe names, where the trainer learns from plain text."""
    column = getattr(recipe.training, "dataset_text_field", None)
    return (*shapes, text(column)) if column else shapes


def data_files(datasets: list[Any]) -> list[str]:
    """The local files that a recipe's `datasets` names."""
    files = []
    for dataset in datasets:
        named = dataset.get("data_files")
        for value in named.values() if isinstance(named, dict) else [named]:
            files += [value] if isinstance(value, str) else list(value or [])
    return files


def newest_checkpoint(folder: Path, world_size: int = 1) -> str | None:
    """The newest of the Trainer's checkpoints that is whole: the last files that its processes write are there.

    Args:
        world_size: processes, each of which keeps the state of its random draws in a file of its own.
    """
    draws = ["rng_state.pth"] if world_size == 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
        except (OSError, ValueError):
            continue
        if all((checkpoint / name).is_file() for name in draws):
            return str(checkpoint)
    return None
