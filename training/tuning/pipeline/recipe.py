"""Recipes in TRL's field names: read, checked key by key, and turned into TRL's dataclasses.

The stock program runs the same recipe (`trl sft --config sft.yaml`). Added here: unknown keys and missing files are
reported before anything is loaded, and settings that depend on the processor are filled in. TRL is imported by
`parse_recipe` only, when there is work to do.
"""

import argparse
import contextlib
import dataclasses
import errno
import re
import tempfile
import typing
import warnings
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml

from training.common.errors import UserError, disk_full, one_line, out_of_memory
from training.common.hub_names import is_hub_name
from training.common.processes import world_size
from training.common.shipped import with_shipped
from training.model_io.model_kinds import REWARD_MODEL, check_model_kind, model_digest
from training.stages.flags import has_flag
from training.stages.provenance import digest
from training.stages.recipe import build, check_scalar, nearest
from training.stages.stage import Stage
from training.tuning.adapters import check_quantization
from training.tuning.keys.rules import check_packages, check_rules, without_effect
from training.tuning.keys.trl_options import (
    CONFIGURATIONS,
    answer_questions,
    check_required,
    defaults_of,
    is_complete,
    read_values,
)
from training.tuning.pipeline.local_files import digest_files

ONLINE = ("grpo", "rloo")  # the stages that train on their own completions
REWARD = "reward"  # the stage whose model outputs a score instead of text
# Values of `report_to`, and the modules that they need.
_MODULES = ("clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "mlflow", "neptune", "swanlab", "tensorboard")
_TRACKERS = {name: name for name in (*_MODULES, "trackio", "wandb")} | {"flyte": "flytekit", "azure_ml": "azureml"}
# Keys that cannot change the weights: they may differ when a run resumes. Keys of evaluations are not among them,
# because an evaluation draws from the random state that sampling and dropout use.
RUNTIME_KEYS = frozenset(
    {
        "model_name_or_path",  # a path; the digest of its content is compared, or a Hub name
        # equal up to the rounding of sums
        *("activation_checkpointing", "activation_checkpointing_kwargs", "activation_offloading"),
        *("gradient_checkpointing", "gradient_checkpointing_kwargs", "attn_implementation"),
        *("torch_compile", "torch_compile_backend", "torch_compile_mode", "torch_empty_cache_steps"),
        # processes and memory
        *("dataset_num_proc", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
        *("dataloader_prefetch_factor", "dataloader_multiprocessing_context", "ddp_timeout", "skip_memory_metrics"),
        *("vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout", "vllm_group_port"),
        "vllm_gpu_memory_utilization",
        # records
        *("logging_strategy", "logging_steps", "logging_first_step", "logging_nan_inf_filter", "log_on_each_node"),
        *("log_level", "log_level_replica", "disable_tqdm", "include_num_input_tokens_seen", "report_to", "run_name"),
        *("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
        *("log_completions", "log_multimodal", "log_unique_prompts", "num_completions_to_print"),
        # checkpoints
        *("save_total_limit", "save_only_model", "save_on_each_node", "enable_jit_checkpoint"),
    }
)
SAVING_KEYS = frozenset({"save_strategy", "save_steps"})


@dataclasses.dataclass
class TrlRecipe:
    """A recipe as TRL's dataclasses.

    Attributes:
        stage: name of the command.
        script, training, model, datasets: TRL's ScriptArguments, trainer configuration, ModelConfig and
            DatasetMixtureConfig.
        where: what to call the recipe in an error.
    """

    stage: str
    script: Any
    training: Any
    model: Any
    datasets: Any
    where: str


def read_recipe(stage: str, arguments: list[str], usage: str) -> tuple[dict[str, Any], str]:
    """Read `--config FILE` and `--key value` overrides; answer `--help` and `--print_config`.

    Args:
        stage: name of the command.
        usage: the command's docstring, shown above TRL's options by `--help`.

    Returns:
        The keys of recipe and command line with their values, and what to call the recipe in an error.

    Raises:
        UserError: an unknown key (with the nearest known one), a wrong type, a key or value that the rules reject, or a
            missing key.
    """
    answer_questions(stage, arguments, usage)
    ask_trl = not is_complete()  # the table of options is of other versions
    if ask_trl and (has_flag(arguments, "help") or "-h" in arguments):
        print(f"{usage.strip()}\n\nAll of TRL's fields, as keys of the recipe or as --key value:\n")
        _parser(stage).print_help()
        raise SystemExit(0)
    values, where = read_values(stage, arguments)
    if ask_trl:
        values = check_keys(values, trl_classes(stage), where)
        check_rules(stage, values, defaults_of(stage), where)
    check_required(values, where)
    return values, where


def open_stage(stage: str, values: dict[str, Any], where: str, arguments: list[str]) -> Stage:
    """The stage of a recipe, with the digests of all its inputs.

    Args:
        values, where: see `read_recipe`.

    Raises:
        UserError: an input is missing, `output_dir` holds something else, a package is missing, or this machine cannot
            quantize.
    """
    check_quantization(values, where)
    check_packages(values, where)
    return Stage(stage, values["output_dir"], values, inputs_of(values), arguments, runtime_keys_of(values))


def runtime_keys_of(values: dict[str, Any]) -> frozenset[str]:
    """The keys of a recipe that cannot change the weights."""
    # The best checkpoint can only be one that was saved.
    keys = RUNTIME_KEYS if values.get("load_best_model_at_end") else RUNTIME_KEYS | SAVING_KEYS
    if values.get("streaming") or values.get("dataset_streaming"):
        keys -= {"dataloader_num_workers"}  # the files of a stream are divided among the workers
    return keys


def parse_recipe(stage: str, values: dict[str, Any], where: str) -> TrlRecipe:
    """TRL's dataclasses from the values of a recipe, with settings for this processor filled in.

    Prints the keys that have no effect.

    Raises:
        UserError: TRL rejects a value or a combination of values, an entry of `datasets` has an unknown key, a tracker
            is unknown or not installed, or there is no GPU for the recipe.
    """
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
    from trl.scripts.utils import DatasetConfig

    from training.common.device import has_bf16, pick_device
    from training.pretraining.trackers import check_trackers

    # TRL sets options of transformers by names that a later release will drop.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    for dataset in values.get("datasets") or []:
        others = {key: value for key, value in dataset.items() if key != "data_files"}  # see `local_files`
        build(DatasetConfig, others, where, prefix="datasets.")
    for sentence in without_effect(values, defaults_of(stage)):
        print(f"{stage}: {sentence}")
    device = pick_device()
    defaults = {"use_cpu": device.type == "cpu", "bf16": has_bf16(device), "report_to": "none"}
    defaults["logging_nan_inf_filter"] = False  # which would log a loss of NaN as the mean of those before it
    if stage == REWARD:
        defaults["lora_task_type"] = "SEQ_CLS"  # PEFT then trains the new score head too
    if stage in ONLINE:
        from training.tuning.online_rl import batch_defaults

        defaults |= batch_defaults(values, defaults_of(stage), world_size())
    if template := values.get("chat_template_path"):
        values = values | {"chat_template_path": str(with_shipped(template))}
    chosen = {key: value for key, value in values.items() if value is not None or key not in defaults}
    recipe = TrlRecipe(stage, *parse_values(_parser(stage), defaults | chosen, where), where)
    for name in recipe.training.report_to:
        if not isinstance(name, str) or name not in INTEGRATION_TO_CALLBACK:
            raise UserError(f"{where}: 'report_to': no '{name}'; {nearest(str(name), INTEGRATION_TO_CALLBACK)}")
    check_trackers([_TRACKERS[name] for name in recipe.training.report_to if name in _TRACKERS])
    if device.type == "cpu" and getattr(recipe.training, "activation_offloading", False):
        raise UserError(f"{where}: 'activation_offloading' needs a GPU, and there is none; remove the key")
    recipe.model.lora_target_modules = target_modules(values.get("lora_target_modules"))
    return recipe


def target_modules(given: str | list[str] | None) -> str | list[str] | None:
    """The `lora_target_modules` for PEFT: a list means names of modules, a text all-linear or a regular expression.

    TRL makes a list of one a text, and PEFT would then compare `q_proj` with the whole path of a module.
    """
    if given is None:
        return None
    names = [given] if isinstance(given, str) else given
    if names != ["all-linear"] and all(re.fullmatch(r"[\w.]+", name) for name in names):
        return names
    return names[0] if len(names) == 1 else names


def trl_classes(stage: str) -> tuple[type, ...]:
    """The dataclasses of a stage's keys: ScriptArguments, the trainer's, ModelConfig, DatasetMixtureConfig."""
    import trl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about ORPO being experimental, which its help states
        configuration, script = map(resolve_name, CONFIGURATIONS[stage])
    return script, configuration, trl.ModelConfig, trl.DatasetMixtureConfig


def _parser(stage: str) -> Any:
    from trl import TrlParser

    return TrlParser(trl_classes(stage), usage=argparse.SUPPRESS, allow_abbrev=False)


def check_keys(values: dict[str, Any], classes: tuple[type, ...], where: str) -> dict[str, Any]:
    """The values of a recipe with numbers and truth values as the fields of these dataclasses are annotated.

    Raises:
        UserError: an unknown key or a wrong type.
    """
    hints = {name: hint for cls in classes for name, hint in typing.get_type_hints(cls).items()}
    fields = {field.name for cls in classes for field in dataclasses.fields(cls) if field.init}
    for key in values:
        if key not in fields:
            raise UserError(f"{where}: unknown key '{key}'; {nearest(str(key), fields)}")
    return {key: check_scalar(value, hints[key], where, key) for key, value in values.items()}


@contextlib.contextmanager
def one_line_errors(where: str) -> Iterator[None]:
    """Raise what TRL and transformers raise about a recipe as UserError, on one line.

    Failures of the machine pass: files that cannot be written, and memory that runs out.
    """
    from jinja2 import TemplateError

    try:
        yield
    except TemplateError as error:
        raise UserError(f"{where}: the chat template rejects a conversation ({one_line(error)})") from error
    except (ValueError, ImportError) as error:
        if disk_full(error):  # datasets fails once more, with this, when it then closes its files
            raise
        raise UserError(f"{where}: {one_line(error)}") from error
    except (TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, OSError) as error:
        if out_of_memory(error):
            raise
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):  # not of transformers
            raise
        raise UserError(f"{where}: {type(error).__name__}: {one_line(error)}") from error


def parse_values(parser: Any, values: dict[str, Any], where: str) -> tuple[Any, ...]:
    """TRL's dataclasses from the values of a recipe. TrlParser reads files only, so they pass through a temporary one.

    Raises:
        UserError: TRL rejects a value, or a combination of values.
    """

    def reject(message: str) -> typing.NoReturn:
        raise UserError(f"{where}: {message}")

    parser.error = reject
    with tempfile.TemporaryDirectory() as folder:  # Windows opens a temporary file only once
        file = Path(folder) / "recipe.yaml"
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        with one_line_errors(where):
            return parser.parse_args_and_config(["--config", str(file)])


def inputs_of(values: dict[str, Any]) -> dict[str, str]:
    """The digests of all files and models that a recipe names.

    Args:
        values: see `read_recipe`.

    Raises:
        UserError: a file or model is missing, empty, or of the wrong kind.
    """
    start = values["model_name_or_path"]
    inputs = {"model": model_digest(start, "model_name_or_path")}
    reward_model = values.get("reward_model_name_or_path")
    if reward_model and not is_hub_name(reward_model):
        check_model_kind(reward_model, REWARD_MODEL, REWARD, key="reward_model_name_or_path")
        inputs["reward_model"] = digest(reward_model, "reward_model_name_or_path")
    template = values.get("chat_template_path")
    if template and not is_hub_name(template):  # a file, or the folder of a model that has one
        inputs[template] = digest(with_shipped(template), "chat_template_path")
    inputs |= digest_files(values.get("datasets") or [])
    dataset = values.get("dataset_name")
    if dataset and Path(dataset).exists():  # otherwise a name on the Hub
        inputs[dataset] = digest(dataset, "dataset_name")
    return inputs
