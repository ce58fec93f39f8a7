"""The directory to publish, with its model card: scratch export --config recipes/quickstart/export.yaml"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from transformers import AutoModelForCausalLM

import modeling_scratch  # noqa: F401  (registers our classes with the Auto classes)
from training.engine.hub import save_model
from training.engine.stage import Stage, check_stage, digest, read_provenance, written_by
from training.engine.weights import check_weights
from training.errors import UserError
from training.recipe import option, parse, required


@dataclass
class ExportConfig:
    output_dir: str = required("folder to publish")
    model: str = required("folder of the model to publish, the output of pretrain, sft or dpo")
    name: str = option("scratch-model", "its name, the title of the card")
    description: str = option("", "what it was trained on and for, for the card")
    license: str | None = option(None, "licence of the weights, as a Hub identifier such as apache-2.0")
    language: str | None = option(None, "language of the text, as a Hub identifier such as en")
    evaluation: str | None = option(None, "folder of `scratch evaluate`, whose table goes on the card")


def model_card(config: ExportConfig, parameters: int, provenance: list[dict[str, Any]], chat: bool) -> str:
    """The README.md of the directory: what it is, how to use it, how it was made, how it scored."""
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["scratch", "custom_code"],
        license=config.license,
        language=config.language,
    )
    prompt = '[{"role": "user", "content": "Hello"}]' if chat else '"Once"'
    sections = [
        f"---\n{metadata.to_yaml()}\n---",
        f"# {config.name}",
        config.description or "A language model built from scratch.",
        f"{parameters / 1e6:.1f}M parameters. The model code is in this directory and needs only transformers:",
        "```python\nfrom transformers import pipeline\n\n"
        f'generator = pipeline("text-generation", "YOUR_NAME/{config.name}", trust_remote_code=True)\n'
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


def lineage(folder: Path) -> list[dict[str, Any]]:
    """The provenance of a model and of the models it grew from, oldest first."""
    record = read_provenance(folder)
    start = record.get("recipe", {}).get("model_name_or_path")
    return [*(lineage(Path(start)) if start else []), *([record] if record else [])]


def main(arguments: list[str]) -> None:
    config = parse(ExportConfig, arguments, __doc__)
    check_stage(config.model, "dpo", "sft", "pretrain", key="model")
    if not written_by(config.model):
        raise UserError(f"'model': {config.model} was not written by scratch pretrain, sft or dpo")
    inputs = {"model": digest(config.model, "model")}
    if config.evaluation:
        check_stage(config.evaluation, "evaluate", key="evaluation")
        inputs["evaluation"] = digest(config.evaluation, "evaluation")
    stage = Stage("export", config.output_dir, config, inputs, arguments)
    if stage.is_current():
        return
    check_weights(config.model, "model")
    folder = stage.begin()
    model = AutoModelForCausalLM.from_pretrained(config.model)
    save_model(model, config.model, folder)
    provenance = lineage(Path(config.model))
    parameters = model.num_parameters()
    (folder / "README.md").write_text(
        model_card(config, parameters, provenance, chat=provenance[-1]["stage"] != "pretrain")
    )
    stage.finish({"parameters": parameters}, wrote="model, tokenizer, code, model card")
    print(f"next: scratch chat {config.output_dir}, or scratch push {config.output_dir} YOUR_NAME/{config.name}")
