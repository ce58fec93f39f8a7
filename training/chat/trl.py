"""A TRL trainer as a stage: the recipe has TRL's own field names, the output is a plain model directory.

The stock program runs the same recipe (`trl sft --config sft.yaml`). What we add: unknown keys and missing files are
found before anything is loaded, settings that depend on the processor are filled in, an interrupted run goes on, and
the result (LoRA merged in) is saved as every other model of ours.
"""

import dataclasses
import json
import shutil
import tempfile
import typing
import warnings
from pathlib import Path
from typing import Any

import yaml

from training.engine.metrics import METRICS
from training.engine.stage import Stage, check_stage, digest
from training.errors import UserError
from training.recipe import apply_overrides, build, check_scalar, nearest, read_yaml, split_overrides


@dataclasses.dataclass
class TrlRecipe:
    """A recipe as TRL sees it, and as written."""

    script: Any
    training: Any
    model: Any
    datasets: Any
    values: dict[str, Any]
    where: str


def parse_trl(config_class: str, arguments: list[str], usage: str) -> TrlRecipe:
    """Parse `--config FILE` and `--key value` overrides into TRL's dataclasses.

    Args:
        config_class: name of the trainer's configuration in trl, such as `SFTConfig`.

    Raises:
        UserError: an unknown key (with the nearest right one), a wrong type, or settings that contradict each other.
    """
    import trl
    from trl.scripts.utils import DatasetConfig

    from training.engine.device import has_bf16, pick_device

    # TRL calls options of transformers by names that a later release will drop.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    classes = (trl.ScriptArguments, getattr(trl, config_class), trl.ModelConfig, trl.DatasetMixtureConfig)
    parser = trl.TrlParser(classes, description=usage, allow_abbrev=False)
    if "--help" in arguments or "-h" in arguments:
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
    name: str, trainer_class: str, config_class: str, columns: tuple[set[str], ...], arguments: list[str], usage: str
) -> None:
    """The whole stage: parse, train with TRL, merge adapters, save. Every process calls this.

    Args:
        name: the verb.
        trainer_class, config_class: names in trl, such as `SFTTrainer` and `SFTConfig`.
        columns: the sets of columns that the trainer takes; the data must have all of one set.
    """
    recipe = parse_trl(config_class, arguments, usage)
    start, training = recipe.model.model_name_or_path, recipe.training
    if Path(start).exists() or start.startswith(("runs/", "./", "/", "../")):
        check_stage(start, "pretrain", "sft", "dpo", "export", "import", key="model_name_or_path")
        inputs = {"model": digest(start, "model_name_or_path")}
    else:
        inputs = {"model": start}  # a name on the Hub
    for file in data_files(recipe.values.get("datasets") or []):
        inputs[file] = digest(file, "datasets.data_files")
        if Path(file).stat().st_size == 0:
            raise UserError(f"'datasets.data_files': {file} is empty; run the stage that writes it again")
    stage = Stage(name, training.output_dir, recipe.values, inputs, arguments)
    if stage.is_current():
        return

    import trl
    from transformers import AutoModelForCausalLM

    from training.engine.hub import save_model
    from training.engine.vocabulary import check_vocabulary, open_tokenizer
    from training.engine.weights import check_weights
    from training.insight.plots import plot_losses

    data = load_data(recipe, columns)
    tokenizer = open_tokenizer(start, "model_name_or_path")
    try:
        check_weights(start, "model_name_or_path", training.trust_remote_code)
        model = AutoModelForCausalLM.from_pretrained(
            start,
            dtype=recipe.model.dtype or "float32",
            attn_implementation=recipe.model.attn_implementation,
            trust_remote_code=training.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"'model_name_or_path': no model at {start} ({_one_line(error)})") from None
    check_vocabulary(tokenizer, model.config, start, "model_name_or_path")
    with training.main_process_first(local=False):
        folder = stage.begin() if training.process_index == 0 else stage.folder
    training.output_dir = str(folder / "trainer")
    try:
        trainer = getattr(trl, trainer_class)(
            model=model,
            args=training,
            train_dataset=data[recipe.script.dataset_train_split],
            eval_dataset=data[recipe.script.dataset_test_split] if training.eval_strategy != "no" else None,
            processing_class=tokenizer,
            peft_config=trl.get_peft_config(recipe.model),
        )
    except ValueError as error:
        raise UserError(f"{recipe.where}: {_one_line(error)}") from None
    checkpoint = newest_checkpoint(folder / "trainer")
    if checkpoint and trainer.is_world_process_zero():
        print(f"{name}: going on from {checkpoint}")
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        if trainer.is_world_process_zero():
            stage.heartbeat()

    trained, state_dict = trainer.accelerator.unwrap_model(trainer.model), None
    if recipe.model.use_peft:
        trained = trained.merge_and_unload()
    else:  # wherever the engine keeps the weights
        state_dict = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        save_model(trained, start, folder, state_dict)
        history = [record for record in trainer.state.log_history if "loss" in record]
        lines = (json.dumps(record) + "\n" for record in trainer.state.log_history)
        (folder / METRICS).write_text("".join(lines))
        plot_losses(history, folder / "loss.png", name, unit="step")
        figures = {"steps": trainer.state.global_step, "loss": history[-1]["loss"] if history else None}
        shutil.rmtree(folder / "trainer")  # its checkpoints, of use only to go on
        stage.finish(figures, wrote="model, metrics.jsonl, loss.png")
    trainer.accelerator.end_training()


def load_data(recipe: TrlRecipe, columns: tuple[set[str], ...]) -> Any:
    """The splits that a recipe names, with the columns that its trainer takes.

    Raises:
        UserError: data that cannot be read, hold nothing, or have other columns.
    """
    import datasets
    import trl

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what goes wrong is said here, in one line
    script, mixture = recipe.script, recipe.datasets
    try:
        if mixture.datasets:
            data = trl.get_dataset(mixture)
        else:
            data = datasets.load_dataset(script.dataset_name, name=script.dataset_config)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        cause = error.__cause__ or error
        raise UserError(f"{recipe.where}: 'datasets' cannot be read ({_one_line(cause)})") from cause
    evaluated = [script.dataset_test_split] if recipe.training.eval_strategy != "no" else []
    for split in (script.dataset_train_split, *evaluated):
        if split not in data:
            raise UserError(f"{recipe.where}: the data have no split '{split}'; {nearest(split, data)}")
    found = data[script.dataset_train_split].column_names  # None in a stream that does not know them beforehand
    text = getattr(recipe.training, "dataset_text_field", None)
    if found and text not in found and not any(wanted <= set(found) for wanted in columns):
        known = ", or ".join("+".join(sorted(wanted)) for wanted in columns)
        raise UserError(f"{recipe.where}: 'datasets' have the columns {', '.join(found)}; it takes {known}")
    return data


def data_files(datasets: list[Any]) -> list[str]:
    """The local files that a recipe's `datasets` names."""
    files = []
    for dataset in datasets:
        named = dataset.get("data_files")
        for value in named.values() if isinstance(named, dict) else [named]:
            files += [value] if isinstance(value, str) else list(value or [])
    return files


def newest_checkpoint(folder: Path) -> str | None:
    """The newest of the Trainer's checkpoints that is whole: the last file it writes is there and can be read."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
        except (OSError, ValueError):
            continue
        return str(checkpoint)
    return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
