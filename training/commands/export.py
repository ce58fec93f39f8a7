"""The directory to publish, with its model card: scratch export --config recipes/quickstart/export.yaml

With --to llama, qwen3 or gpt2 a model that is of that architecture becomes one of transformers' own class: the same
logits, and no code in the directory, so that everything opens it that opens a Llama. With --adapter a PEFT adapter of
the model, such as `trl sft` leaves, is merged into it first.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import ModelCardData
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from modeling_scratch import ScratchConfig
from modeling_scratch.conversion_scratch import stock_config, to_stock
from training.common.errors import UserError
from training.common.recipe import option, parse, required
from training.common.stage import LANGUAGE_MODELS, Stage, check_stage, digest, read_provenance, written_by
from training.model_io.model_folder import no_progress_bars, save_model
from training.model_io.parity import check_parity
from training.model_io.tokenizers import has_tokenizer, open_model_tokenizer
from training.model_io.weights import check_weights
from training.tuning.adapters import check_adapter, merge_adapter

PUBLISHED = tuple(stage for stage in LANGUAGE_MODELS if stage != "export")


@dataclass
class ExportConfig:
    output_dir: str = required("folder to publish")
    model: str = required(f"folder of the model to publish, the output of {', '.join(PUBLISHED)}")
    adapter: str | None = option(None, "folder of a PEFT adapter that was trained on the model, to be merged into it")
    to: Literal["scratch", "llama", "qwen3", "gpt2"] = option(
        "scratch", "its class: ours, with its code, or the one of transformers that it is (llama, qwen3, gpt2)"
    )
    name: str = option("scratch-model", "its name, the title of the card")
    description: str = option("", "what it was trained on and for, for the card")
    license: str | None = option(None, "licence of the weights, as a Hub identifier such as apache-2.0")
    language: str | None = option(None, "language of the text, as a Hub identifier such as en")
    evaluation: str | None = option(None, "folder of `scratch evaluate`, whose table goes on the card")


def model_card(config: ExportConfig, model: PreTrainedModel, provenance: list[dict[str, Any]], chat: bool) -> str:
    """The README.md of the directory: what it is, how to use it, how it was made, how it scored."""
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
    """Tell the tokenizer, too, which token opens a text: engines outside transformers ask it and not the model."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bos_token_id = AutoConfig.from_pretrained(folder).bos_token_id
    if tokenizer.bos_token is None and bos_token_id is not None:
        file = folder / "tokenizer_config.json"
        settings = json.loads(file.read_text(encoding="utf-8"))
        settings["bos_token"] = tokenizer.convert_ids_to_tokens(bos_token_id)
        file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def lineage(folder: Path) -> list[dict[str, Any]]:
    """The provenance of a model and of the models it grew from, oldest first."""
    record = read_provenance(folder)
    start = record.get("recipe", {}).get("model_name_or_path")
    return [*(lineage(Path(start)) if start else []), *([record] if record else [])]


def check_door(config: ExportConfig) -> None:
    """Refuse, before any work, a model that is not of the architecture to export to.

    Raises:
        UserError: names every dial in the way.
    """
    network = AutoConfig.from_pretrained(config.model)
    if not isinstance(network, ScratchConfig):
        raise UserError(f"'to': {config.model} is a {network.model_type} of transformers already; leave 'to' out")
    try:
        stock_config(network, config.to)
    except ValueError as error:
        raise UserError(f"'to': {config.model}: {error}") from None


def main(arguments: list[str]) -> None:
    config = parse(ExportConfig, arguments, __doc__)
    check_stage(config.model, *PUBLISHED, key="model")
    if not written_by(config.model):
        raise UserError(f"'model': {config.model} was not written by scratch {', '.join(PUBLISHED)}")
    if has_tokenizer(config.model):
        open_model_tokenizer(config.model, "model")
    if config.to != "scratch":
        check_door(config)
    inputs = {"model": digest(config.model, "model")}
    if config.adapter:
        if config.to != "scratch":
            raise UserError("'adapter' and 'to' do not go together: the logits of a merged model are nobody else's")
        check_adapter(config.adapter, config.model, "adapter")
        inputs["adapter"] = digest(config.adapter, "adapter")
    if config.evaluation:
        check_stage(config.evaluation, "evaluate", key="evaluation")
        inputs["evaluation"] = digest(config.evaluation, "evaluation")
    stage = Stage("export", config.output_dir, config, inputs, arguments)
    if stage.is_current():
        return
    check_weights(config.model, "model")
    with no_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(config.model)
        if config.adapter:
            model = merge_adapter(model, config.adapter, "adapter")
        folder = stage.begin()
        if config.to != "scratch":
            model = to_stock(model, config.to)
    save_model(model, config.model, folder)
    provenance = (lineage(Path(config.adapter).parent) if config.adapter else []) or lineage(Path(config.model))
    chat = bool(config.adapter) or provenance[-1]["stage"] not in ("pretrain", "import")
    (folder / "README.md").write_text(model_card(config, model, provenance, chat))
    metrics, wrote = {"parameters": model.num_parameters()}, "model, tokenizer, code, model card"
    del model
    if config.to != "scratch":
        if (folder / "tokenizer_config.json").is_file():
            name_bos_token(folder)
        metrics["difference"] = check_parity(config.model, folder)
        wrote = (
            f"{config.to}, tokenizer, model card; its logits are within {metrics['difference']:.1e} of the original's"
        )
    stage.finish(metrics, wrote)
    print(f"next: scratch chat {config.output_dir}, or scratch push {config.output_dir} YOUR_NAME/{config.name}")
