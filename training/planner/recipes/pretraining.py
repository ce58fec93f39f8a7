"""pretrain.yaml of a recipe that the planner writes: sizes, batch and steps of the plan, and an optimizer for them."""

from training.common.errors import UserError
from training.planner.architecture import PRESETS, Architecture
from training.planner.plan import Plan
from training.planner.recipes.lines import line, one_two_five
from training.planner.units import as_count, as_decimal_bytes

_KIND = {"norm_type": "rms", "position_type": "rope", "mlp_type": "swiglu", "qk_norm": False}  # of ScratchConfig
SMALL = 50 * 10**6  # parameters


def pretrain(plan: Plan, runs: str) -> list[str]:
    """The result of the stage in words, and the lines of its recipe. A checkpoint is due about once an hour."""
    architecture, shape = plan.architecture, plan.shape
    parameters, tokens = as_count(architecture.num_parameters), as_count(shape.tokens)
    every = one_two_five(min(shape.steps / 10, 3600 / plan.step_seconds.expected))
    return [
        f"pretraining, {parameters} parameters on {tokens} tokens",
        f"output_dir: {runs}/pretrain",
        f"data: {runs}/data",
        f"tokenizer: {runs}/tokenizer",
        "",
        *_model(architecture),
        "",
        f"sequence_length: {shape.sequence_length}",
        line(f"global_batch_size: {shape.global_batch}", f"{shape.tokens_per_step:,} tokens per step"),
        line(
            f"per_device_train_batch_size: {shape.micro_batch}",
            f"the largest that fits is {plan.micro_batch} by the plan; halve it if memory is short",
        ),
        line(f"max_steps: {shape.steps}", f"{shape.tokens / architecture.num_parameters:.0f} tokens per parameter"),
        *[line("activation_checkpointing: true", "saves memory for a third more computation")] * shape.checkpointing,
        "",
        *_optimizer(plan),
        "",
        f"eval_steps: {every}",
        line(f"save_steps: {every}", f"a checkpoint of {as_decimal_bytes(plan.checkpoint_bytes)}"),
        "seed: 0",
        *['sample_prompts: ["The history of", "Once upon a time"]'] * (plan.layout.devices == 1),
    ]


def preset_of(architecture: Architecture) -> str:
    """The preset of ours that an architecture belongs to. Raises UserError: it is none of them."""
    for preset, options in PRESETS.items():
        kind = {key: options.get(key, default) for key, default in _KIND.items()}
        if all(getattr(architecture, key) == value for key, value in kind.items()):
            return preset
    raise UserError(
        f"'output_dir': no preset has the norms, positions and MLP of {architecture.name}; plan it without output_dir, "
        "or another architecture"
    )


def _model(architecture: Architecture) -> list[str]:
    """The keys `preset` and `model`: sizes, and what differs from the preset."""
    preset = preset_of(architecture)
    sizes = {
        "hidden_size": architecture.hidden_size,
        "intermediate_size": architecture.intermediate_size,
        "num_hidden_layers": architecture.num_hidden_layers,
        "num_attention_heads": architecture.num_attention_heads,
    }
    comments = {"intermediate_size": "width of the MLP"}
    if architecture.num_key_value_heads != architecture.num_attention_heads:
        sizes["num_key_value_heads"] = architecture.num_key_value_heads
        group = architecture.num_attention_heads // architecture.num_key_value_heads
        comments["num_key_value_heads"] = f"grouped-query attention: a key/value cache {group} times smaller"
    if architecture.head_dim * architecture.num_attention_heads != architecture.hidden_size:
        sizes["head_dim"] = architecture.head_dim
    if architecture.tie_word_embeddings != PRESETS[preset].get("tie_word_embeddings", False):
        sizes["tie_word_embeddings"] = str(architecture.tie_word_embeddings).lower()
    lines = [line(f"  {key}: {value}", comments.get(key, "")) for key, value in sizes.items()]
    if architecture.num_parameters < SMALL:
        lines += [line("  zero_init_projections: true", "every layer starts as the identity")]
    remark = "every inference engine can open this architecture" if preset in ("qwen3", "llama") else ""
    return [line(f"preset: {preset}", remark), "model:", *lines]


def _optimizer(plan: Plan) -> list[str]:
    """The key `optimizer`. Muon's rates follow the width, AdamW's are those of published models of the size."""
    architecture, steps = plan.architecture, plan.shape.steps
    if plan.shape.optimizer == "muon":
        of_width = (256 / architecture.hidden_size) ** 0.5  # the quickstart's width, for which its rates are best
        tied = architecture.tie_word_embeddings
        embedding = (0.004 if tied else 0.1) * of_width
        return [
            "optimizer:",
            "  name: muon",
            "  learning_rate: 0.02",
            line(f"  embedding_learning_rate: {embedding:.2g}", "it is also the output matrix" if tied else ""),
            f"  head_learning_rate: {0.004 * of_width:.2g}",
            f"  scalar_learning_rate: {0.002 if tied else 0.01}",
            f"  weight_decay: {0.01 if architecture.num_parameters < SMALL else 0.05}",
            f"  warmup_steps: {max(10, steps // 200)}",
            line("  decay_fraction: 0.5", "of the run, at its end"),
        ]
    size = architecture.num_parameters
    rate = "4.0e-4" if size < 3e9 else "3.0e-4" if size < 3e10 else "1.5e-4"
    return [
        "optimizer:",
        line("  name: adamw", "works element by element, so sharded matrices need no communication"),
        line(f"  learning_rate: {rate}", "that of Llama 2 at this size" if size > 3e9 else ""),
        f"  embedding_learning_rate: {rate}",
        f"  head_learning_rate: {rate}",
        f"  scalar_learning_rate: {rate}",
        "  weight_decay: 0.1",
        f"  warmup_steps: {max(10, min(2000, steps // 50))}",
        line("  decay_fraction: 0.2", "of the run, at its end; before it, the run can be extended"),
    ]
