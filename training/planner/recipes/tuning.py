"""sft.yaml and dpo.yaml of a recipe that the planner writes, with TRL's own keys and data sets on the Hub."""

from training.planner.plan import Plan
from training.planner.recipes.launch_files import adapts, tuning_devices
from training.planner.recipes.lines import line
from training.planner.recipes.mixtures import PREFERENCES, TuningData, conversations
from training.planner.recipes.pretraining import SMALL

_BATCH = 64  # sequences per step, over all devices


def _tuning_data(data: TuningData) -> list[str]:
    name = [f"    name: {data.name}"] if data.name else []
    return ["datasets:", line(f"  - path: {data.path}", f"licence {data.license}"), *name, f"    split: {data.split}"]


def _shared_keys(plan: Plan) -> list[str]:
    """The keys that SFT and DPO share."""
    large = plan.shape.checkpointing
    return [
        line(f"gradient_checkpointing: {str(large).lower()}", "" if large else "not needed: the model fits without it"),
        "lr_scheduler_type: cosine",
        "logging_steps: 10",
        "save_steps: 500",
        "save_total_limit: 1",
        "seed: 0",
    ]


def sft(plan: Plan, runs: str) -> list[str]:
    """The result of SFT in words, and the lines of its recipe: all weights are trained."""
    size = plan.architecture.num_parameters
    rate = "1.0e-3" if size < SMALL else "3.0e-4" if size < 1e9 else "2.0e-5" if size < 3e10 else "1.0e-5"
    at_once = 16 if size < 1e9 else 4 if size < 3e9 else 2 if size < 3e10 else 1
    return [
        "supervised fine-tuning (SFT)",
        "# TRL's own field names; `trl sft --config` runs this file too.",
        f"model_name_or_path: {runs}/pretrain",
        "trust_remote_code: true",
        f"output_dir: {runs}/sft",
        "",
        *_tuning_data(conversations(size)),
        line("assistant_only_loss: true", "score the answers only, not the questions"),
        line(f"max_length: {min(2048, plan.shape.sequence_length)}", "tokens; longer conversations are truncated"),
        "",
        line(f"max_steps: {300 if size < SMALL else 4000}", f"of {_BATCH} conversations each"),
        line(f"per_device_train_batch_size: {at_once}", "halve it and double the accumulation if memory is short"),
        f"gradient_accumulation_steps: {_accumulation(plan, at_once)}",
        line("train_sampling_strategy: group_by_length", "batches of similar length need little padding"),
        f"learning_rate: {rate}",
        "warmup_steps: 50",
        *_shared_keys(plan),
    ]


def _accumulation(plan: Plan, at_once: int) -> int:
    """Accumulation steps for the batch, on the devices that the tuning stages use."""
    return max(1, _BATCH // (at_once * tuning_devices(plan)))


def dpo(plan: Plan, runs: str) -> list[str]:
    """The result of DPO in words, and the lines of its recipe: LoRA where a device can hold the model."""
    size = plan.architecture.num_parameters
    at_once = 8 if size < 1e9 else 2 if size < 3e9 else 1
    adapter = [
        "",
        "# LoRA: only a low-rank adapter is trained. The model without its adapter is the reference model.",
        "use_peft: true",
        "lora_r: 16",
        "lora_alpha: 32",
        "lora_target_modules: all-linear",
        *["dtype: bfloat16"] * (size > 1e9),
    ]
    whole = [
        "",
        line("precompute_ref_log_probs: true", "the reference model is not in memory while training"),
    ]
    rate = ("5.0e-4" if size < 1e9 else "5.0e-5") if adapts(plan) else "5.0e-7"
    return [
        f"preference tuning (DPO){' with LoRA' * adapts(plan)}",
        "# TRL's own field names; `trl dpo --config` runs this file too.",
        f"model_name_or_path: {runs}/sft",
        "trust_remote_code: true",
        f"output_dir: {runs}/dpo",
        "",
        *_tuning_data(PREFERENCES),
        f"max_length: {min(2048, plan.shape.sequence_length)}",
        *(adapter if adapts(plan) else whole),
        "",
        line("beta: 0.1", "higher values stay closer to the reference model"),
        line("loss_type: [sigmoid, sft]", "sigmoid prefers the chosen answer; sft keeps it likely"),
        "loss_weights: [1.0, 0.2]",
        line(f"max_steps: {100 if size < SMALL else 500}", f"of {_BATCH} pairs each"),
        f"per_device_train_batch_size: {at_once}",
        f"gradient_accumulation_steps: {_accumulation(plan, at_once)}",
        f"learning_rate: {rate}",
        "warmup_steps: 20",
        *_shared_keys(plan),
    ]
