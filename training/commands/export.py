"""Write a folder to publish: the model, converted if requested, and its model card.

    scratch export --config recipes/quickstart/export.yaml
    scratch export --model runs/mine/sft --to llama --output_dir runs/mine/llama

MODEL is any folder that transformers opens: the output of a stage, a checkpoint, the output of `trl`, a classifier or a
reward model. With --to llama, qwen3 or gpt2 a model of that architecture is converted to transformers' own class: the
logits are the same, the folder holds no code, and any program that opens a Llama opens it. With --to gguf such a model
becomes one file for llama.cpp and Ollama, with a Modelfile beside it. With --to web it becomes a page that runs it in
the browser: a folder for any static host, or with --single_file one HTML file. With --adapter a PEFT adapter of the
model, as `trl sft` writes it, is merged first.
"""

import re
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from training.common.errors import UserError
from training.common.hub_names import is_hub_name
from training.model_io.model_kinds import LANGUAGE_MODEL, MODEL_STAGES, ModelKind, kind_of, model_kind
from training.planner.facts.head_sizes import head_size, head_size_note
from training.stages.flags import parse
from training.stages.help import command_line
from training.stages.provenance import check_stage, digest
from training.stages.recipe import PathText, option, required
from training.stages.stage import Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from training.publishing.model_card import EngineFile

_NAME = re.compile(r"[\w.-]+", re.ASCII)
_ENGINES = ("gguf", "web")  # values of `to` that are not classes of transformers
_OPTIONS_OF = {"precision": _ENGINES, "held_out": _ENGINES, "single_file": ("web",), "runtime": ("web",)}


@dataclass
class ExportConfig:
    """Recipe of `scratch export`."""

    output_dir: PathText = required("folder to publish")
    model: PathText = required("folder of the model to publish: output of a stage or of transformers, or a checkpoint")
    adapter: PathText | None = option(None, "folder of a PEFT adapter trained on the model, to merge into it")
    to: Literal["scratch", "llama", "qwen3", "gpt2", "gguf", "web"] = option(
        "scratch",
        "class of the exported model: scratch (ours, with its code), or one of transformers; or gguf, a file for "
        "llama.cpp; or web, a page for the browser",
    )
    precision: Literal["f32", "f16", "bf16", "q8_0"] = option(
        "f32", "numbers in the matrices; only f32 gives the tokens of the original", group="GGUF and web"
    )
    held_out: PathText | None = option(
        None,
        "folder of `scratch prepare` whose validation split measures the loss of precision, and shows letters that "
        "llama.cpp lacks; default below f32: that of the pretraining",
        group="GGUF and web",
    )
    single_file: bool = option(
        False,
        "write the page as one HTML file, which opens without a server and holds at most 300 MB of model",
        group="GGUF and web",
    )
    runtime: PathText | None = option(
        None,
        "folder with the two archives of wllama, the engine of the page; default: the npm registry, once",
        group="GGUF and web",
    )
    name: str = option("scratch-model", "name of the model, the title of the card", group="Model card")
    description: str = option("", "one paragraph on training data and purpose", group="Model card")
    license: str | None = option(None, "licence of the weights, by its Hub name such as apache-2.0", group="Model card")
    language: str | None = option(None, "language of the text, by its Hub name such as en", group="Model card")
    evaluation: PathText | None = option(
        None, "folder of `scratch evaluate` with scores of the model, for the table of results", group="Model card"
    )

    def __post_init__(self):
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"'name': '{self.name}' cannot name a repository; use letters, digits, '.', '-' and '_'")
        for name, targets in _OPTIONS_OF.items():
            if self.to not in targets and getattr(self, name) != self.__dataclass_fields__[name].default:
                to = " and ".join(targets)
                raise ValueError(f"'{name}' is an option of --to {to}; add that, or leave '{name}' out")


CONFIG = ExportConfig


def inputs(config: ExportConfig) -> dict[str, str]:
    """Digests of what the export reads.

    Raises:
        UserError: a folder is missing, or does not hold a model, an adapter or results.
    """
    if is_hub_name(config.model):
        raise UserError(
            f"'model': {config.model} is a name on the Hub; download it first, with `hf download {config.model} "
            "--local-dir FOLDER`, and give the folder"
        )
    model_kind(config.model, *MODEL_STAGES, key="model")
    digests = {"model": digest(config.model, "model")}
    if config.adapter:
        digests["adapter"] = digest(config.adapter, "adapter")
    if config.held_out or config.precision != "f32":
        from training.engines.gguf_checks import held_out_corpus

        held_out = held_out_corpus(config.model, config.precision, config.held_out)
        check_stage(held_out, "prepare", key="held_out")
        digests["held_out"] = digest(held_out, "held_out")
    if config.evaluation:
        check_stage(config.evaluation, "evaluate", key="evaluation")
        digests["evaluation"] = digest(config.evaluation, "evaluation")
    return digests


def main(arguments: list[str]) -> None:
    """Export a model.

    1. Check that model, tokenizer and adapter belong together, and that the architecture is the requested one.
    2. Load the model, merge the adapter, convert the class.
    3. Write it: a folder for transformers, a GGUF file, or a page.

    Raises:
        UserError: one of the checks fails.
    """
    config = parse(ExportConfig, arguments, __doc__)
    digests, source = inputs(config), model_kind(config.model, key="model")
    check_model(config, source)
    evaluated_as = ()
    if config.evaluation and not config.adapter:  # which changes the model that was evaluated
        from training.publishing.lineage import names_in_evaluation

        evaluated_as = names_in_evaluation(config.evaluation, config.model, digests["model"])
    stage = Stage("export", config.output_dir, config, digests, arguments, runtime_keys={"runtime"})
    if stage.is_current():
        return

    from training.model_io.weights import check_weights

    check_weights(config.model, "model", model_class=source.auto_model())
    model = load_model(config, source.auto_model())
    write = {"gguf": export_gguf, "web": export_page}.get(config.to, export_model)
    write(config, model, source, evaluated_as, stage)


def export_model(
    config: ExportConfig, model: "PreTrainedModel", source: ModelKind, evaluated_as: tuple[str, ...], stage: Stage
) -> None:
    """Save the model with its tokenizer and model card. For a stock class, compare the logits of both folders.

    Raises:
        UserError: the logits differ, or the tokenizer of the adapter does not fit.
    """
    from training.engines.gpt2_folder import fit_suppressed_tokens, name_unknown_token, names_in_file
    from training.model_io.model_folder import name_bos_token, save_model, save_tokenizer
    from training.model_io.parity import check_parity
    from training.model_io.tokenizers import has_tokenizer
    from training.publishing.lineage import answers_messages
    from training.tuning.adapters import adapted_tokenizer

    kind = kind_of([type(model).__name__], model.config.num_labels)
    tokenizer = adapted_tokenizer(config.adapter, config.model, model) if config.adapter else None
    as_published = config.to == "gpt2" and kind is LANGUAGE_MODEL
    folder = stage.begin()
    save_model(model, config.model, folder, names_in_file(model) if as_published else None)
    if as_published:
        fit_suppressed_tokens(folder, model.config.vocab_size)
    if tokenizer:
        save_tokenizer(tokenizer, folder, model)
    write_card(config, model, kind, evaluated_as, folder, answers_messages(folder, config.model, config.adapter))
    code = ", code" if model.config.model_type == "scratch" else ""
    metrics, wrote = {"parameters": model.num_parameters()}, f"model, tokenizer{code}, model card"
    note = head_size_note(head_size(model.config)) if kind is LANGUAGE_MODEL else None
    del model
    if config.to != "scratch":
        if has_tokenizer(folder):
            name_bos_token(folder)
            if as_published:
                name_unknown_token(folder)
        metrics["difference"] = check_parity(config.model, folder, source.auto_model())
        wrote = f"{config.to}, tokenizer, model card; logits within {metrics['difference']:.1e} of the original's"
    if note:
        print(f"export: {note}")
    chat = [command_line("chat", config.output_dir)] if kind is LANGUAGE_MODEL else []
    push = command_line("push", config.output_dir, f"YOUR_NAME/{config.name}")
    stage.finish(metrics, wrote, uses=[*chat, push])


def export_gguf(
    config: ExportConfig, model: "PreTrainedModel", source: ModelKind, evaluated_as: tuple[str, ...], stage: Stage
) -> None:
    """Write the GGUF file with its Modelfile and model card. Below F32, measure what the precision loses.

    Raises:
        UserError: no held-out text to measure it on.
    """
    from training.engines.gguf_agreement import measure_agreement
    from training.engines.gguf_checks import held_out_text
    from training.engines.gguf_folder import describe_gguf, write_gguf_folder
    from training.engines.gguf_unicode import unknown_letters
    from training.engines.modelfile import NAME
    from training.model_io.tokenizers import open_model_tokenizer
    from training.publishing.lineage import answers_messages

    text = held_out_text(config.model, config.precision, config.held_out)
    agreement = None if config.precision == "f32" else measure_agreement(model, config.precision, text)
    tokenizer, chat = open_model_tokenizer(config.model, "model"), answers_messages(config.model, config.model)
    folder = stage.begin()
    file, vocabulary = write_gguf_folder(folder, config.name, model, tokenizer, config.precision, chat)
    letters = unknown_letters(tokenizer, text, vocabulary.pre)
    engine = describe_gguf(config.name, file, vocabulary, config.precision, agreement, letters)
    write_card(config, model, source, evaluated_as, folder, chat, engine)
    metrics, wrote = {"parameters": model.num_parameters()}, f"{file}, {NAME}, model card"
    if agreement:
        metrics |= asdict(agreement)
        wrote += f"; the most likely token is the original's at {agreement.same_token:.1%} of the positions"
    if letters:
        wrote += f"; llama.cpp may divide text with {letters} into other tokens"
    ollama = shlex.join(["ollama", "create", config.name, "-f", str(Path(config.output_dir) / NAME)])
    push = command_line("push", config.output_dir, f"YOUR_NAME/{config.name}")
    stage.finish(metrics, wrote, uses=[ollama, push])


def export_page(
    config: ExportConfig, model: "PreTrainedModel", source: ModelKind, evaluated_as: tuple[str, ...], stage: Stage
) -> None:
    """Write the browser page with its model card, as a folder or as one file.

    Raises:
        UserError: no engine, no held-out text to measure a precision on, or a model too large for one file.
    """
    from training.browser_page.folder import check_size, describe_page, write_page_folder
    from training.browser_page.page import PAGE
    from training.browser_page.runtime import open_runtime
    from training.engines.gguf_checks import measure_precision
    from training.model_io.tokenizers import open_model_tokenizer
    from training.publishing.lineage import answers_messages

    if config.single_file:
        check_size(model, config.precision)
    runtime = open_runtime(config.runtime)
    agreement = measure_precision(config.model, model, config.precision, config.held_out)
    tokenizer, chat = open_model_tokenizer(config.model, "model"), answers_messages(config.model, config.model)
    folder = stage.begin()
    page, files = write_page_folder(
        folder, config.name, model, tokenizer, config.precision, chat, runtime, config.single_file
    )
    write_card(config, model, source, evaluated_as, folder, chat, describe_page(page, config.precision, agreement))
    metrics = {"parameters": model.num_parameters()} | (asdict(agreement) if agreement else {})
    use = f"open {Path(config.output_dir) / page} in a browser"
    if page == PAGE:
        serve = shlex.join(["python", "-m", "http.server", "--directory", config.output_dir])
        use = f"{serve}, and open http://localhost:8000; any static host works, without special headers"
    stage.finish(metrics, f"{', '.join(files)}, model card", uses=[use])


def check_model(config: ExportConfig, source: ModelKind) -> None:
    """Reject a model that cannot be exported as requested, before any work.

    Args:
        source: kind of the model.

    Raises:
        UserError: a damaged model, another architecture, or an adapter of another model.
    """
    from training.model_io.tokenizers import has_tokenizer, open_model_tokenizer
    from training.tuning.adapters import check_adapter

    if has_tokenizer(config.model):
        open_model_tokenizer(config.model, "model")
    if config.to in _ENGINES:
        from training.engines.gguf_checks import check_gguf

        check_gguf(config.model, source, config.precision, config.to)
    elif config.to != "scratch":
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


def load_model(config: ExportConfig, auto_class: type) -> "PreTrainedModel":
    """The model to export, opened by an Auto class, with the adapter merged and in the requested class."""
    from modeling_scratch import ScratchConfig
    from modeling_scratch.conversion_scratch import nearest_architecture, to_stock
    from training.engines.gpt2_folder import trim_embedding
    from training.model_io.model_folder import no_progress_bars
    from training.model_io.tokenizers import has_tokenizer, open_tokenizer
    from training.tuning.adapters import merge_adapter, open_base

    with no_progress_bars():
        if config.adapter:
            base = open_base(config.model, config.adapter, auto_class, "adapter")
            return merge_adapter(base, config.adapter, "adapter")
        model = auto_class.from_pretrained(config.model)
        if config.to == "scratch" or not isinstance(model.config, ScratchConfig):
            return model
        stock = to_stock(model, nearest_architecture(model.config) if config.to in _ENGINES else config.to)
        if config.to == "gpt2" and has_tokenizer(config.model):
            trim_embedding(stock, len(open_tokenizer(config.model, "model")))
        return stock


def write_card(
    config: ExportConfig,
    model: "PreTrainedModel",
    kind: ModelKind,
    evaluated_as: tuple[str, ...],
    folder: Path,
    chat: bool,
    engine: "EngineFile | None" = None,
) -> None:
    """Write README.md: the model, how to use it, its results and data, and how it was made.

    Args:
        evaluated_as: see `names_in_evaluation`.
        chat, engine: see `model_card`.
    """
    from training.publishing.lineage import made_from
    from training.publishing.model_card import CardOptions, model_card

    options = CardOptions(
        config.name, config.description, config.license, config.language, config.evaluation, evaluated_as
    )
    records = made_from({"model": config.model, "adapter": config.adapter})
    text = model_card(options, model, kind, records, chat, engine)
    (folder / "README.md").write_text(text, encoding="utf-8")
