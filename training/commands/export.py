"""Write a folder to publish: the model, converted if requested, and its model card.

    scratch export --config recipes/quickstart/export.yaml
    scratch export --model runs/mine/sft --to llama --output_dir runs/mine/llama

With --to llama, qwen3 or gpt2 a model of that architecture is converted to transformers' own class: the logits are the
same, the folder holds no code, and any program that opens a Llama opens it. With --adapter a PEFT adapter of the model,
as `trl sft` writes it, is merged first.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from training.common.errors import UserError
from training.common.recipe import PathText, option, parse, required
from training.common.stage import LANGUAGE_MODELS, Stage, check_stage, digest, read_provenance, written_by

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EXPORTED = tuple(stage for stage in LANGUAGE_MODELS if stage != "export")


@dataclass
class ExportConfig:
    """Recipe of `scratch export`."""

    output_dir: PathText = required("folder to publish")
    model: PathText = required(f"folder of the model to publish, the output of {', '.join(EXPORTED)}")
    adapter: PathText | None = option(None, "folder of a PEFT adapter trained on the model, to merge into it")
    to: Literal["scratch", "llama", "qwen3", "gpt2"] = option(
        "scratch", "class of the exported model: scratch (ours, with its code), or one of transformers"
    )
    name: str = option("scratch-model", "name of the model, the title of the card", group="Model card")
    description: str = option("", "one paragraph on training data and purpose", group="Model card")
    license: str | None = option(None, "licence of the weights, by its Hub name such as apache-2.0", group="Model card")
    language: str | None = option(None, "language of the text, by its Hub name such as en", group="Model card")
    evaluation: PathText | None = option(
        None, "folder of `scratch evaluate`, for the table of results", group="Model card"
    )


CONFIG = ExportConfig


def inputs(config: ExportConfig) -> dict[str, str]:
    """Digests of what the export reads.

    Raises:
        UserError: a folder is missing, or is not the output of the right stage.
    """
    check_stage(config.model, *EXPORTED, key="model")
    if not written_by(config.model):
        raise UserError(f"'model': {config.model} was not written by scratch {', '.join(EXPORTED)}")
    digests = {"model": digest(config.model, "model")}
    if config.adapter:
        digests["adapter"] = digest(config.adapter, "adapter")
    if config.evaluation:
        check_stage(config.evaluation, "evaluate", key="evaluation")
        digests["evaluation"] = digest(config.evaluation, "evaluation")
    return digests


def main(arguments: list[str]) -> None:
    """Export a model.

    1. Check that model, tokenizer and adapter belong together, and that the architecture is the requested one.
    2. Load the model, merge the adapter, convert the class.
    3. Save it with its tokenizer and model card.
    4. For a stock class: compare the logits of both folders.

    Raises:
        UserError: one of the checks fails.
    """
    config = parse(ExportConfig, arguments, __doc__)
    digests = inputs(config)
    check_model(config)
    stage = Stage("export", config.output_dir, config, digests, arguments)
    if stage.is_current():
        return

    from training.model_io.model_folder import save_model
    from training.model_io.parity import check_parity
    from training.model_io.weights import check_weights

    check_weights(config.model, "model")
    model = load_model(config)
    folder = stage.begin()
    save_model(model, config.model, folder)
    provenance = (lineage(Path(config.adapter).parent) if config.adapter else []) or lineage(Path(config.model))
    chat = bool(config.adapter) or provenance[-1]["stage"] not in ("pretrain", "import")
    (folder / "README.md").write_text(model_card(config, model, provenance, chat), encoding="utf-8")
    metrics, wrote = {"parameters": model.num_parameters()}, "model, tokenizer, code, model card"
    del model
    if config.to != "scratch":
        if (folder / "tokenizer_config.json").is_file():
            name_bos_token(folder)
        metrics["difference"] = check_parity(config.model, folder)
        wrote = f"{config.to}, tokenizer, model card; logits within {metrics['difference']:.1e} of the original's"
    stage.finish(metrics, wrote)
    quoted = shlex.quote(config.output_dir)
    print(f"next: scratch chat {quoted}, or scratch push {quoted} {shlex.quote(f'YOUR_NAME/{config.name}')}")


def check_model(config: ExportConfig) -> None:
    """Reject a model that cannot be exported as requested, before any work.

    Raises:
        UserError: a damaged model, another architecture, or an adapter of another model.
    """
    from training.model_io.tokenizers import has_tokenizer, open_model_tokenizer
    from training.tuning.adapters import check_adapter

    if has_tokenizer(config.model):
        open_model_tokenizer(config.model, "model")
    if config.to != "scratch":
        check_architecture(config)
    if config.adapter:
        if config.to != "scratch":
            raise UserError(
                "'adapter' and 'to' cannot be combined; merge the adapter in one export, and convert the result in a "
                "second"
            )
        check_adapter(config.adapter, config.model, "adapter")


def check_architecture(config: ExportConfig) -> None:
    """Reject a model that is not of the architecture to export to.

    Raises:
        UserError: names every option of the model that the architecture lacks.
    """
    from transformers import AutoConfig

    from modeling_scratch import ScratchConfig
    from modeling_scratch.conversion_scratch import stock_config

    network = AutoConfig.from_pretrained(config.model)
    if not isinstance(network, ScratchConfig):
        raise UserError(f"'to': {config.model} is already a {network.model_type} of transformers; leave 'to' out")
    try:
        stock_config(network, config.to)
    except ValueError as error:
        raise UserError(f"'to': {config.model}: {error}") from None


def load_model(config: ExportConfig) -> "PreTrainedModel":
    """The model to export, with the adapter merged and in the requested class."""
    from transformers import AutoModelForCausalLM

    from modeling_scratch.conversion_scratch import to_stock
    from training.model_io.model_folder import no_progress_bars
    from training.tuning.adapters import merge_adapter

    with no_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(config.model)
        if config.adapter:
            model = merge_adapter(model, config.adapter, "adapter")
        return to_stock(model, config.to) if config.to != "scratch" else model


def model_card(config: ExportConfig, model: "PreTrainedModel", provenance: list[dict[str, Any]], chat: bool) -> str:
    """The README.md of the folder: the model, how to use it, its results, and how it was made.

    Args:
        provenance: of the stages that made the model, see `lineage`.
        chat: whether it answers messages.
    """
    from huggingface_hub import ModelCardData

    from modeling_scratch import ScratchConfig

    ours = isinstance(model.config, ScratchConfig)
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["scratch", "custom_code"] if ours else ["scratch"],
        license=config.license,
        language=config.language,
    )
    prompt = '[{"role": "user", "content": "Hello"}]' if chat else '"Once"'
    trust = ", trust_remote_code=True" if ours else ""
    nature = "The model code is in this directory and needs only transformers"
    if not ours:
        nature = f"A stock {type(model).__name__}, so this directory holds no code"
    sections = [
        f"---\n{metadata.to_yaml()}\n---",
        f"# {config.name}",
        config.description or "A language model built from scratch.",
        f"{model.num_parameters() / 1e6:.1f}M parameters. {nature}:",
        "```python\nfrom transformers import pipeline\n\n"
        f'generator = pipeline("text-generation", "YOUR_NAME/{config.name}"{trust})\n'
        f"print(generator({prompt}))\n```",
    ]
    if config.evaluation:
        results = (Path(config.evaluation) / "results.md").read_text(encoding="utf-8")
        sections.append("#" + results.strip())  # its title becomes a section of the card
    rows = ["| stage | minutes | command |", "|---|---|---|"]
    rows += [f"| {record['stage']} | {record['seconds'] / 60:.1f} | `{record['command']}` |" for record in provenance]
    versions = ", ".join(f"{name} {version}" for name, version in provenance[-1]["versions"].items())
    sections += ["## How it was made", "\n".join(rows), f"With {versions}."]
    return "\n\n".join(sections) + "\n"


def name_bos_token(folder: Path) -> None:
    """Write the token that opens a text into the tokenizer's settings, where engines outside transformers look."""
    from transformers import AutoConfig, AutoTokenizer

    from training.model_io.model_folder import set_tokenizer_options

    tokenizer = AutoTokenizer.from_pretrained(folder)
    bos_token_id = AutoConfig.from_pretrained(folder).bos_token_id
    if tokenizer.bos_token is None and bos_token_id is not None:
        set_tokenizer_options(folder, bos_token=tokenizer.convert_ids_to_tokens(bos_token_id))


def lineage(folder: Path) -> list[dict[str, Any]]:
    """The provenance of a model and of the models it was trained from, oldest first."""
    record = read_provenance(folder)
    start = record.get("recipe", {}).get("model_name_or_path")
    return [*(lineage(Path(start)) if start else []), *([record] if record else [])]
