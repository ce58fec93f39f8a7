"""Private names of other libraries that the package overrides or reads.

A new version may rename them without notice. Each is listed here with the file that depends on it, so that an upgrade
fails with one sentence, and a new dependency is noticed.
"""

import ast
import importlib.metadata
import inspect
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
import trl

ROOT = Path(__file__).parents[2]

# Methods with their parameters.
METHODS = {
    "torch.nn.modules.module._has_any_global_hook": ("", "modeling_scratch/loss_scratch.py"),
    "trl:SFTTrainer._prepare_dataset": (
        "self, dataset, processing_class, args, packing, formatting_func, dataset_name",
        "training/tuning/sft.py",
    ),
    "trl:DPOTrainer._prepare_dataset": (
        "self, dataset, processing_class, args, dataset_name",
        "training/tuning/preference_checks.py",
    ),
    "trl:KTOTrainer._prepare_dataset": (
        "self, dataset, processing_class, args, dataset_name",
        "training/tuning/preference_checks.py",
    ),
    "trl:RewardTrainer._prepare_dataset": (
        "self, dataset, processing_class, args, dataset_name",
        "training/tuning/reward_model.py",
    ),
    "trl:GRPOTrainer._tokenize_prompts": ("self, prompts", "training/tuning/online_rl.py"),
    "trl:RLOOTrainer._tokenize_prompts": ("self, prompts", "training/tuning/online_rl.py"),
    "trl:GRPOTrainer._calculate_rewards": (
        "self, inputs, prompts, completions, completion_ids_list",
        "training/tuning/online_rl.py",
    ),
    "trl:RLOOTrainer._calculate_rewards": (
        "self, inputs, prompts, completions, completion_ids_list",
        "training/tuning/online_rl.py",
    ),
    "transformers:Trainer._get_num_items_in_batch": ("self, batch_samples, device", "training/tuning/accumulation.py"),
    "transformers:Trainer._prepare_inputs": ("self, inputs", "training/tuning/reward_model.py"),
    "transformers:Trainer._run_epoch": (
        "self, model, epoch, train_dataloader, steps_in_epoch, num_update_steps_per_epoch, trial, "
        "ignore_keys_for_eval, start_time, resume_from_checkpoint, epochs_trained, steps_trained_in_current_epoch",
        "training/tuning/pipeline/resume.py",
    ),
    "accelerate:Accelerator._prepare_fsdp2": ("self, args", "training/pretraining/accelerator.py"),
    "transformers:PreTrainedModel._from_config": ("config, kwargs", "training/pretraining/build.py"),
    "transformers:PreTrainedModel._init_weights": ("self, module", "modeling_scratch/modeling_scratch.py"),
    "transformers:GenerationMixin._optimize_model_for_decode": ("self", "modeling_scratch/modeling_scratch.py"),
    "transformers:GenerationMixin._get_logits_processor": (
        "self, generation_config, input_ids_seq_length, encoder_input_ids, prefix_allowed_tokens_fn, logits_processor, "
        "device, model_kwargs, negative_prompt_ids, negative_prompt_attention_mask",
        "training/serving/sampler.py",
    ),
    "transformers:GenerationMixin._prepare_generation_config": (
        "self, generation_config, kwargs",
        "training/serving/sampler.py",
    ),
    "transformers:GenerationMixin._prepare_special_tokens": (
        "self, generation_config, kwargs_has_attention_mask, device, batch_size",
        "training/serving/sampler.py",
    ),
    "transformers:GenerationMixin._prefill": (
        "self, input_ids, generation_config, model_kwargs, is_first_iteration",
        "training/serving/alone.py",
    ),
    "transformers:GenerationMixin._sample": (
        "self, input_ids, logits_processor, stopping_criteria, generation_config, synced_gpus, streamer, model_kwargs",
        "modeling_scratch/modeling_scratch.py",
    ),
    "lm_eval.models.huggingface:HFLM._loglikelihood_tokens": (
        "self, requests, disable_tqdm, override_bs",
        "training/eval/harness/language_model.py",
    ),
    "transformers:GenerationMixin._update_model_kwargs_for_generation": (
        "self, outputs, model_kwargs, is_encoder_decoder, num_new_tokens",
        "training/serving/alone.py",
    ),
    "datatrove.executor.local:LocalPipelineExecutor._run_for_rank": (
        "self, rank, local_rank, node_rank",
        "training/corpus/execution/executors.py",
    ),
}
# Attributes of classes.
CLASS_ATTRIBUTES = {
    "transformers:PreTrainedModel": (
        "_no_split_modules",
        "_skip_keys_device_placement",
        "_supports_flash_attn",
        "_supports_sdpa",
        "_supports_flex_attn",
        "_supports_attention_backend",
        "_can_compile_fullgraph",
        "_tied_weights_keys",
        "_tp_plan",
        "_pp_plan",
        "_fsdp_plan",
    ),
}
# Attributes of objects: where to find the object, and who reads them.
OBJECT_ATTRIBUTES: dict[str, tuple[Callable[[], object], str]] = {
    "_attn_implementation": (lambda: config(), "modeling_scratch/decoding_scratch.py"),
    "_name_or_path": (lambda: config(), "training/tuning/adapters.py"),
    **{
        name: (lambda: torch.nn.Linear(1, 1), "modeling_scratch/originals_scratch.py")
        for name in (
            "_call_impl",
            "_wrapped_call_impl",
            "_forward_hooks",
            "_forward_pre_hooks",
            "_modules",
            "_parameters",
        )
    },
    "_global_forward_hooks": (lambda: torch.nn.modules.module, "modeling_scratch/originals_scratch.py"),
    "_global_forward_pre_hooks": (lambda: torch.nn.modules.module, "modeling_scratch/originals_scratch.py"),
    "_local_scalar_dense": (lambda: torch.ops.aten, "training/planner/count.py"),
    "_C": (lambda: torch, "modeling_scratch/originals_scratch.py"),
    "_len_torch_function_stack": (lambda: torch._C, "modeling_scratch/originals_scratch.py"),
    "_len_torch_dispatch_stack": (lambda: torch._C, "modeling_scratch/originals_scratch.py"),
    "_backward_hooks": (lambda: torch.nn.Linear(1, 1), "modeling_scratch/loss_scratch.py"),
    "_backward_pre_hooks": (lambda: torch.nn.Linear(1, 1), "modeling_scratch/loss_scratch.py"),
    "_compiled_call_impl": (lambda: torch.nn.Linear(1, 1), "training/pretraining/profile.py"),
}
# What TRL's online trainers keep of the newest completions, and under which keys.
LOGS = ("prompt", "completion", "rewards", "advantages", "extra")
# Operators of torch with their parameters.
OPERATORS = {
    "_is_mkldnn_bf16_supported": [],
    "_linear_pointwise": ["X", "W", "B", "attr", "scalars", "algorithm"],
    "_reorder_linear_weight": ["self", "batch_size"],
}
# Names without an underscore in modules that the documentation does not show.
UNDOCUMENTED = {
    "transformers.trainer:DEFAULT_PROGRESS_CALLBACK": "training/tuning/pipeline/progress.py",
    "transformers.utils.chat_template_utils:render_jinja_template": "training/model_io/conversations.py",
    "trl.chat_template_utils:get_training_chat_template": "training/tuning/sft.py",
    "trl.chat_template_utils:has_generation_markers": "training/tuning/sft.py",
    "trl.data_utils:is_conversational": "training/tuning/sft.py",
    "trl.experimental.orpo:ORPOTrainer": "training/tuning/orpo.py",
    "trl.import_utils:TRLExperimentalWarning": "training/tuning/orpo.py",
    "trl.scripts.grpo:GRPOScriptArguments": "training/commands/grpo.py",
    "trl.scripts.rloo:RLOOScriptArguments": "training/commands/rloo.py",
    "trl.scripts.utils:DatasetConfig": "training/tuning/pipeline/recipe.py",
    "peft.utils.save_and_load:load_peft_weights": "training/tuning/adapters.py",
}
# Private by their underscore alone: documented, or set on objects by name.
DOCUMENTED = {"_exit"}


def config() -> object:
    from transformers import LlamaConfig

    return LlamaConfig()


def version(name: str) -> str:
    """Such as `trl 1.16.0`."""
    package = name.partition(":")[0].partition(".")[0]
    return f"{package} {importlib.metadata.version(package)}"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_what_it_took(name):
    expected, file = METHODS[name]
    owner, _, method = name.rpartition(".")
    found = getattr(resolve_name(owner), method, None)
    assert found is not None, f"{version(name)} has no {name} any more, which {file} overrides or calls"
    parameters = ", ".join(inspect.signature(found).parameters)
    assert parameters == expected, f"{version(name)}: {name} takes ({parameters}), not ({expected}): adapt {file}"


@pytest.mark.parametrize("owner", CLASS_ATTRIBUTES)
def test_a_class_has_the_attributes_it_had(owner):
    for name in CLASS_ATTRIBUTES[owner]:
        assert hasattr(resolve_name(owner), name), f"{version(owner)} has no {owner}.{name} any more, which we override"


@pytest.mark.parametrize("name", OBJECT_ATTRIBUTES)
def test_an_object_has_the_attributes_it_had(name):
    make, file = OBJECT_ATTRIBUTES[name]
    assert hasattr(make(), name), f"{type(make()).__name__} has no {name} any more, which {file} reads"


@pytest.mark.parametrize("trainer", [trl.GRPOTrainer, trl.RLOOTrainer], ids=["grpo", "rloo"])
def test_the_online_trainers_keep_the_newest_completions(trainer):
    source = inspect.getsource(trainer.__init__).partition("self._logs = {")[2].partition("\n        }")[0]
    for key in LOGS:
        assert f'"{key}": ' in source, (
            f"{version('trl')}: {trainer.__name__}._logs has no '{key}', which training/tuning/online_rl.py reads"
        )


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_of_torch_takes_what_it_took(name):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN, and the operators are not used")
    operator = getattr(torch.ops.mkldnn, name, None)
    assert operator is not None, f"{version('torch')} has no torch.ops.mkldnn.{name} any more"
    parameters = [argument.name for argument in operator.default._schema.arguments]
    file = "modeling_scratch/decoding_scratch.py"
    assert parameters == OPERATORS[name], f"{version('torch')}: mkldnn.{name} takes {parameters}: adapt {file}"


@pytest.mark.parametrize("name", UNDOCUMENTED)
def test_an_undocumented_module_has_what_it_had(name, recwarn):
    try:
        resolve_name(name)
    except (ImportError, AttributeError):
        pytest.fail(f"{version(name)} has no {name} any more, which {UNDOCUMENTED[name]} imports")


def source_files() -> list[Path]:
    return [file for folder in ("modeling_scratch", "training") for file in (ROOT / folder).rglob("*.py")]


def names_used() -> tuple[set[str], set[str]]:
    """Private names that our code defines, and those that it reads as attributes or imports from others."""
    defined, used = set(), set()
    for file in source_files():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                defined.add(node.name)
            elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
                defined.add(node.id if isinstance(node, ast.Name) else node.attr)
            elif isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(("training", "modeling_")):
                used |= {alias.name for alias in node.names}
    return defined, {name for name in used if name.startswith("_") and not name.startswith("__")}


def test_the_lists_are_complete():
    listed = {name.rpartition(".")[2] for name in METHODS} | {"_logs"} | set(OBJECT_ATTRIBUTES) | set(OPERATORS)
    listed |= {name for names in CLASS_ATTRIBUTES.values() for name in names} | DOCUMENTED
    defined, used = names_used()
    new = used - defined - listed
    assert not new, f"{', '.join(sorted(new))}: private names of another library; list them in this file"


def test_no_listed_name_is_forgotten():
    """A name that our code no longer mentions leaves the lists."""
    text = "".join(file.read_text(encoding="utf-8") for file in source_files())
    listed = [*(name.rpartition(".")[2] for name in METHODS), *OBJECT_ATTRIBUTES, *OPERATORS, "_logs"]
    listed += [name for names in CLASS_ATTRIBUTES.values() for name in names]
    listed += [name.partition(":")[2] for name in UNDOCUMENTED]
    assert not [name for name in listed if name not in text]
