"""Draw what the attention heads of a model do, how they formed during training, and which of them matter.

    scratch attention RUN [--head 1.3] [--text "a sentence"] [--output_dir FOLDER]
    scratch attention RUN --without 1.3
    scratch attention RUN --without all
    scratch attention RUN --neighbours def " if" --positions

RUN is the output folder of `scratch pretrain`, finished or not, or of a whole run. Without a record of its attention
(`insight` in its recipe), its checkpoints are recorded. RUN may also be the folder of any causal language model, or its
name on the Hub, of which one moment is recorded. The run's own files stay as they are.

Written are an interactive page (attention.html), the four strips of a phase change, an animation of one head with a
strip of its frames, and two pages that explain Q, K and V with numbers of the model. With --without, heads are knocked
out, and the table and picture say how much worse the model becomes. A head is named LAYER.HEAD, both from 0. With
--neighbours and --positions, embeddings are drawn instead: the closest tokens at every checkpoint, and positions.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.common.errors import UserError
from training.common.files import open_folder, write_whole
from training.common.hub_names import is_hub_name
from training.common.tables import Row, as_text
from training.stages.flags import parse
from training.stages.help import command_line
from training.stages.provenance import beside, read_provenance, staging_dir, written_by
from training.stages.recipe import PathText, option, positional

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from training.insight.ablation import Ablations
    from training.insight.heads import Head
    from training.insight.record import Record

TEXT = "the cat sat on the mat, and the cat"  # explained where there is no other
_SHOWN = 20  # heads in the table of the terminal


@dataclass
class AttentionConfig:
    """Options of `scratch attention`."""

    run: PathText = positional("folder of a run or of a model, or a name on the Hub")
    output_dir: PathText | None = option(None, "folder for the pictures (default: RUN-attention)")
    head: str | None = option(
        None, "head to animate and explain, such as 1.3 (default: highest induction or previous-token score)"
    )
    text: str | None = option(None, "text to explain (default: held-out text with strong attention)")
    tokens: int = option(64, "tokens of each sequence that is drawn, where the run has no record", at_least=8)
    neighbours: list[str] = option(list, "tokens whose closest tokens in the embedding are drawn", several=True)
    positions: bool = option(False, "draw the position embeddings of the model")
    without: list[str] = option(list, "heads to knock out together, such as 1.3; all: each by itself", several=True)


@dataclass(frozen=True)
class Source:
    """The contents of RUN.

    Attributes:
        folder: the output of pretraining, or the folder or name of a model.
        record: the record of its attention, or None.
        checkpoints: the number of checkpoints.
        model: folder or name of the newest weights, or None.
        recipe: of pretraining; empty for another model.
    """

    folder: str
    record: Path | None
    checkpoints: int
    model: str | None
    recipe: dict[str, Any]


def main(arguments: list[str]) -> None:
    """Draw the pictures of a run or of its embeddings, or knock heads out.

    Raises:
        UserError: nothing to draw there, a head that does not exist, a text that is too long, attention that cannot be
            recorded, or a folder that holds the output of a stage.
    """
    config = parse(AttentionConfig, arguments, __doc__, recipe=False)
    source = find_source(config.run)
    folder = Path(config.output_dir) if config.output_dir else default_folder(config.run)
    if stage := written_by(folder):
        raise UserError(f"'output_dir': {folder} holds the output of '{stage}'; choose another folder")
    with open_folder(folder) as work:
        if config.without:
            lines = knock_out(config, source, work)
        elif config.neighbours or config.positions:
            lines = draw_embeddings(config, source, work)
        else:
            lines = draw(config, source, work)
        names = sorted(path.name for path in work.iterdir())
    for line in lines:
        print(line)
    print(f"attention: wrote {', '.join(names)} in {folder}")
    if "attention.html" in names:
        ablation = command_line("attention", config.run, "--without", "all")
        print(f"next: open {folder / 'attention.html'} in a browser, or run {ablation}")


def default_folder(run: str) -> Path:
    """The folder of the pictures: beside a folder, or for a name on the Hub here."""
    folder = Path(Path(run).name) if is_hub_name(run) else Path(run)
    return beside(folder if folder.name else folder.resolve(), "-attention")


def find_source(run: str) -> Source:
    """The contents of the folder of a run or of a model.

    Raises:
        UserError: no such folder, or a run of pretraining that has nothing to look at yet.
    """
    from training.insight.record import INSIGHT, PROBES
    from training.stages.checkpoints import CHECKPOINTS, read_checkpoints

    if is_hub_name(run):
        return Source(run, None, 0, run, {})
    candidates = [folder for parent in (Path(run), Path(run, "pretrain")) for folder in (parent, staging_dir(parent))]
    for folder in candidates:
        provenance = read_provenance(folder)
        record = folder / INSIGHT
        checkpoints = read_checkpoints(folder / CHECKPOINTS)
        weights = [folder] if (folder / "config.json").is_file() else [kept.folder for kept in checkpoints[-1:]]
        recipe = provenance["recipe"] if provenance.get("stage") == "pretrain" else {}
        has_record = (record / PROBES).is_file()
        if has_record or weights:
            model = str(weights[0]) if weights else None
            return Source(str(folder), record if has_record else None, len(checkpoints) if recipe else 0, model, recipe)
        if recipe:
            raise UserError(
                f"'run': {folder} has no record of attention, no checkpoint and no model; set insight.enabled: true in "
                "its recipe, or wait for its first checkpoint"
            )
    why = "no record of attention and no model" if Path(run).exists() else "no such folder"
    raise UserError(f"'run': {run}: {why}; give the output of `scratch pretrain`, a model folder or a Hub name")


def draw(config: AttentionConfig, source: Source, work: Path) -> list[str]:
    """Write the page and all pictures into a folder; returns remarks for the terminal."""
    from training.attention_page.page import write_page
    from training.insight.heads import head_name, head_to_draw, read_head
    from training.plots.insight.film import HeadFilm, draw_film, draw_frames, draw_moment

    ids = encode(config.text, source) if config.text is not None else None
    record, lines = open_record(config, source, work)
    head, measure = head_to_draw(record)
    if config.head:
        head = read_head(config.head, record.layers, record.heads, "head")
    else:
        lines.append(f"attention: drew head {head_name(head)}: its {measure.replace('_', '-')} score is the highest")
    title = f"Head {head_name(head)} of {config.run}"
    page = write_page(record, work / "attention.html", config.run)
    lines += [f"attention: attention.html: {sentence}" for sentence in page.left_out]
    film = HeadFilm(record, head, measure)
    draw_maps = draw_frames if len(record.steps) > 1 else draw_moment
    draw_maps(film, images(work, f"head-{head_name(head)}"), title)
    if len(record.steps) > 1:
        draw_film(film, work, title)
        draw_phase_change(record, source, work, config.run)
    if source.model:
        lines += explain(config, source, record, head, ids, work)
    else:
        lines.append(f"attention: no explanation of Q, K and V: {source.folder} has no weights yet")
    return lines


def encode(text: str, source: Source) -> list[int]:
    """The token ids of the text to explain.

    Raises:
        UserError: it is too long, the tokenizer cannot encode it, or there are no weights to read it with.
    """
    from training.insight.walkthrough import encode_text
    from training.model_io.tokenizers import open_model_tokenizer

    if source.model is None:
        raise UserError(f"'text': {source.folder} has no weights to read it with; wait for its first checkpoint")
    return encode_text(text, open_model_tokenizer(source.model, "run"), context_of(source))


def model_config(source: Source) -> "PreTrainedConfig":
    """The configuration of the model, of its text part if it has several."""
    from transformers import AutoConfig

    import modeling_scratch  # noqa: F401  makes its models known to transformers

    return AutoConfig.from_pretrained(source.model).get_text_config()


def context_of(source: Source) -> int:
    """Tokens that the model has learned to read."""
    from training.model_io.context_length import DEFAULT_CONTEXT, context_length

    context = context_length(model_config(source)) or DEFAULT_CONTEXT
    return min(context, source.recipe.get("sequence_length", context))


def open_record(config: AttentionConfig, source: Source, work: Path) -> tuple["Record", list[str]]:
    """The record of the run, or one that is made now, of its checkpoints or of its model; and remarks.

    Raises:
        UserError: `tokens` exceeds the context, no such head, or attention that cannot be recorded.
    """
    from training.insight.config import InsightConfig
    from training.insight.heads import read_head
    from training.insight.record import INSIGHT, Record
    from training.insight.recording import record_from_checkpoints, record_from_model

    if source.record:
        return Record.open(source.record), []
    context = context_of(source)
    if config.tokens > context:
        raise UserError(f"'tokens': {config.tokens} exceeds the context of {context} tokens; lower it")
    sizes = model_config(source)
    if config.head and hasattr(sizes, "num_attention_heads"):
        read_head(config.head, sizes.num_hidden_layers, sizes.num_attention_heads, "head")
    insight = InsightConfig(
        tokens=config.tokens,
        heads=[config.head] if config.head else [],
        texts=[config.text] if config.text is not None else [],
    )
    remark = f"attention: {source.folder} has no record of its attention; recorded "
    if source.checkpoints:
        record = record_from_checkpoints(source.folder, work / INSIGHT, insight)
        return record, [f"{remark}its {source.checkpoints} checkpoints (more with insight.enabled: true in its recipe)"]
    run = source.folder if source.recipe else None
    return record_from_model(source.model, work / INSIGHT, insight, run), [f"{remark}its model, so one moment"]


def draw_phase_change(record: "Record", source: Source, work: Path, title: str) -> None:
    """Draw the four strips, with the tokens after which the published law expects induction heads."""
    from training.insight.formation import formation_tokens
    from training.plots.insight.phases import draw_phases

    recipe = source.recipe
    expected = formation_tokens(recipe["global_batch_size"], recipe["sequence_length"]) if recipe else None
    draw_phases(record, images(work, "phases"), title, expected)


def explain(
    config: AttentionConfig, source: Source, record: "Record", head: "Head", ids: list[int] | None, work: Path
) -> list[str]:
    """Write the explanation of Q, K and V, as a PDF of two pages and as Markdown; returns remarks.

    Args:
        ids: of the text that the user gives.

    Raises:
        NotPlain: the user gives a text, and the attention of this architecture is not explained.
    """
    from training.insight.walkthrough import NotPlain, walk_through
    from training.model_io.language_model import open_language_model
    from training.plots.insight.explanation import as_page
    from training.plots.insight.explanation_pages import draw_explanation

    model, tokenizer = open_language_model(source.model)
    try:
        walk = walk_through(model, tokenizer, ids or default_text(record, head, tokenizer), head, config.run)
    except NotPlain as reason:
        if ids:
            raise
        return [f"attention: no explanation of Q, K and V: {reason}"]
    pages = ["explanation-1.png", "explanation-2.png"]
    draw_explanation(walk, work / "explanation.pdf", [work / page for page in pages])
    write_whole(work / "explanation.md", as_page(walk, pages))
    return []


def default_text(record: "Record", head: "Head", tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The token ids of the first text of the record that fits on a page, of held-out text, or of a sentence."""
    from training.insight.walkthrough import MOST_TOKENS, striking_text

    texts = [probe.token_ids for probe in record.probes if probe.kind == "text" and len(probe.token_ids) <= MOST_TOKENS]
    if texts:
        return texts[0]
    return striking_text(record, head) or tokenizer(TEXT, add_special_tokens=False)["input_ids"][:MOST_TOKENS]


def draw_embeddings(config: AttentionConfig, source: Source, work: Path) -> list[str]:
    """Draw the neighbours of tokens through training, and the positions; returns the table of neighbours.

    Raises:
        UserError: no weights, a text that is not one token, or a model without positions that can be drawn.
    """
    from training.model_io.embeddings import neighbours_through_training, position_vectors
    from training.model_io.language_model import open_language_model
    from training.plots.embeddings import draw_neighbours, draw_positions

    if source.model is None:
        raise UserError(f"'run': {source.folder} has no weights yet; wait for its first checkpoint")
    lines = []
    if config.neighbours:
        found = neighbours_through_training(source.folder, config.neighbours)
        draw_neighbours(found, images(work, "neighbours"), config.run)
        for one in found:
            step = "" if one.step is None else f" at step {one.step:,}"
            nearest = ", ".join(f"{token} {cosine:.2f}" for token, cosine in one.nearest)
            lines.append(f"{one.token}{step}: {nearest}")
    if config.positions:
        model, _ = open_language_model(source.model)
        draw_positions([position_vectors(model)], images(work, "positions"), config.run)
    return lines


def knock_out(config: AttentionConfig, source: Source, work: Path) -> list[str]:
    """Measure the model without heads, and write the figures and, for all heads, the map; returns the table.

    Raises:
        UserError: no weights, or a head that does not exist.
    """
    from training.insight.ablation import ablate, choose_texts
    from training.insight.attention import attention_sizes
    from training.insight.heads import read_head
    from training.insight.recording import validation_loader
    from training.model_io.language_model import open_language_model
    from training.plots.insight.ablation import draw_ablations

    if source.model is None:
        raise UserError(f"'without': {source.folder} has no weights to change; wait for its first checkpoint")
    model, tokenizer = open_language_model(source.model)
    sizes = attention_sizes(model)
    every = config.without == ["all"]
    if every:
        groups = [((layer, head),) for layer in range(sizes.layers) for head in range(sizes.heads)]
    else:
        groups = [tuple(read_head(name, sizes.layers, sizes.heads, "without") for name in config.without)]
    loader = validation_loader(source.recipe) if source.recipe else None
    texts = choose_texts(tokenizer, loader, context_of(source), source.recipe.get("seed", 0))
    ablations = ablate(model, texts, groups)
    write_whole(work / "ablation.json", json.dumps(ablations.to_json(), indent=2) + "\n")
    if every:
        draw_ablations(ablations, sizes.layers, sizes.heads, images(work, "ablation"), config.run)
    lines = [as_text(ablation_table(ablations))]
    if loader is None:
        lines.append("attention: only copying is measured: without the output of `scratch pretrain`, no held-out text")
    return lines


def ablation_table(ablations: "Ablations") -> list[Row]:
    """A row for the whole model and for each ablation, the most harmful first; changes with standard errors."""
    def row(name: str, loss: Any, bits: float | None, copying: Any, sign: str) -> Row:
        error = "" if copying.stderr is None else f" ± {copying.stderr:.3f}"
        cells = [f"{loss.value:{sign}.4f} ± {loss.stderr or 0:.4f}", f"{bits:{sign}.4f}"] if loss else []
        return [name, *cells, f"{copying.value:{sign}.3f}{error}"]

    header = ["without", *(["loss (nats per token)", "bits per byte"] if ablations.loss else []), "copying"]
    rows = [row("(nothing)", ablations.loss, ablations.bits_per_byte, ablations.copying, "")]
    for effect in ablations.ranked()[:_SHOWN]:
        rows.append(row(effect.name, effect.loss, effect.bits_per_byte, effect.copying, "+"))
    return [header, *rows]


def images(folder: Path, stem: str) -> list[Path]:
    """The two files of a picture: a PNG for the screen, a PDF for print."""
    return [folder / f"{stem}.png", folder / f"{stem}.pdf"]
