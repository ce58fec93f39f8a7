"""scratch prepare: turn documents into token shards, instruction pairs, preference pairs and task items.

    scratch prepare --config recipes/quickstart/prepare.yaml

Cleans text, drops broken, generated and repeated documents, holds out a validation split, and writes the tokens in
datatrove's layout, with a plot and a data card for the Hub. It also mines functions from Python source: the question is
a signature and its summary, the answer the function. Every document read is counted, in the printed table and in
manifest.json.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.common.errors import UserError
from training.corpus.curation.config import DataConfig
from training.corpus.examples.config import PairConfig
from training.corpus.execution.config import EngineConfig
from training.stages.flags import parse
from training.stages.help import command_line
from training.stages.provenance import LANGUAGE_MODELS, check_stage, digest
from training.stages.recipe import PathText, option, required
from training.stages.stage import Stage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from training.corpus.curation.corpus import Corpus

# They do not change what is written.
RUNTIME_KEYS = frozenset({"workers", "engine", "explain"})


@dataclass
class PrepareConfig:
    """A recipe of `scratch prepare`."""

    output_dir: PathText = required("folder for the shards")
    tokenizer: PathText = required("folder with tokenizer.json, from `scratch tokenizer` or any Hugging Face model")
    data: DataConfig = option(DataConfig, "documents")
    instructions: PairConfig = option(PairConfig, "pairs of instruction and function, for `scratch sft`")
    preferences: PairConfig = option(PairConfig, "pairs of right and wrong function body, for `scratch dpo`")
    tasks: int = option(0, "items per multiple-choice task for lm-eval, from the held-out packages", at_least=0)
    explain: int = option(0, "dropped documents to show per rule, with the value that was out of bounds", at_least=0)
    workers: int = option(0, "processes that clean and filter documents; 0 for one per core", at_least=0)
    engine: EngineConfig = option(EngineConfig, "engine that distributes the work over many machines")
    max_tokens: int = option(
        256, "maximum tokens of an instruction pair, rendered by the chat template", at_least=1
    )

    def __post_init__(self):
        if self.engine.kind and self.workers:
            raise ValueError("'workers' has no effect with an 'engine'; set 'engine.workers'")

    @property
    def has_examples(self) -> bool:
        """Whether any pairs or task items are requested."""
        pairs = (self.instructions, self.preferences)
        return self.tasks > 0 or any(count > 0 for pair in pairs for count in (pair.train, pair.validation))


CONFIG = PrepareConfig
PRINTING_KEYS = ("explain",)  # with which it prints something even if the output is up to date


def inputs(config: PrepareConfig) -> dict[str, str]:
    """Digests of the tokenizer and of all that the documents are made from. Raises UserError: one is missing."""
    from training.corpus.curation.fingerprint import corpus_digest

    check_stage(config.tokenizer, "tokenizer", *LANGUAGE_MODELS, key="tokenizer")
    return {"tokenizer": digest(config.tokenizer, "tokenizer"), "data": corpus_digest(config.data)}


def main(arguments: list[str]) -> None:
    """Prepare a corpus.

    1. Read the recipe; skip everything if the output is up to date.
    2. Curate: read, clean, filter, deduplicate and split the documents.
    3. Write held-out instructions, preferences and task items; drop training documents that hold one.
    4. Tokenize both splits, mix the sources, write shards and manifest.
    5. Write instructions and preferences to train on, from functions unlike the held-out ones.
    6. Write the plot, samples and the data card.
    """
    config = parse(PrepareConfig, arguments, __doc__)

    from training.corpus.curation.curation import Curation
    from training.corpus.execution.distributed import Cluster
    from training.corpus.output.audit import explain
    from training.corpus.output.card import CARD, PICTURE
    from training.corpus.output.distributed_encoding import encode_distributed
    from training.corpus.output.encoding import Encoder, encode_locally
    from training.corpus.output.examples import ExampleWriter
    from training.corpus.output.shards import check_sources_left, describe_notes, write_shards
    from training.data.shards import read_manifest

    check_stage(config.tokenizer, "tokenizer", *LANGUAGE_MODELS, key="tokenizer")
    tokenizer = load_tokenizer(config)
    stage = Stage("prepare", config.output_dir, config, inputs(config), arguments, RUNTIME_KEYS)
    if stage.is_current():
        if config.explain:
            print(explain(Path(config.output_dir), config.explain))
        return
    folder = stage.begin()
    work = folder / "work"  # an interrupted run resumes from here
    cluster = Cluster(config.engine, work / "tasks") if config.engine.kind else None
    corpus = Curation(config.data, work, config.workers, cluster).run()

    examples = ExampleWriter(
        corpus, tokenizer, folder, config.instructions, config.preferences, config.tasks, config.max_tokens
    )
    counts = examples.write_held_out() if config.has_examples else {}
    check_sources_left(corpus)

    encoder = Encoder(Path(config.tokenizer), tokenizer.eos_token_id, len(tokenizer))
    write = encode_distributed(corpus, encoder, cluster) if cluster else encode_locally(corpus, encoder)
    metrics = write_shards(corpus, write, encoder, folder, work)
    notes = [*describe_notes(read_manifest(folder), config.data), *corpus.split_notes()]
    print(corpus.funnel, *notes, sep="\n")

    if config.has_examples:
        training = examples.write_training()
        counts = {kind: training.get(kind, {}) | numbers for kind, numbers in counts.items()}
        for kind, numbers in counts.items():
            print(f"{kind}: " + ", ".join(f"{number:,} {name}" for name, number in numbers.items()))

    write_report(corpus, config, folder)
    if config.explain:
        print(explain(folder, config.explain))
    train, out = metrics["train"], config.output_dir
    publish = command_line("push", out, "YOUR_NAME/DATA", "--dataset")
    print(f"see {out}/{PICTURE} and {CARD}; to publish: {publish}")
    wrote = f"{train['tokens'] / 1e6:.2f} M training tokens, {train['bytes_per_token']:.2f} bytes each"
    stage.finish(metrics | counts, wrote)


def load_tokenizer(config: PrepareConfig) -> "PreTrainedTokenizerFast":
    """Open the tokenizer and check that it can end documents and, for examples, write chats.

    Raises:
        UserError: no tokenizer.json, no end-of-text token, or no chat template.
    """
    from training.model_io.tokenizers import open_tokenizer

    folder = Path(config.tokenizer)
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"'tokenizer': {folder} holds no tokenizer.json; run `scratch tokenizer` first")
    tokenizer = open_tokenizer(folder, "tokenizer")
    if tokenizer.eos_token_id is None:
        raise UserError(f"'tokenizer': {folder} has no eos_token to end each document; set one in its configuration")
    if config.has_examples and tokenizer.chat_template is None:
        raise UserError(f"'tokenizer': {folder} has no chat template, which instructions need; set their counts to 0")
    return tokenizer


def write_report(corpus: "Corpus", config: PrepareConfig, folder: Path) -> None:
    """Write the plot, samples and the data card of shards that are written."""
    from training.corpus.output.card import PICTURE, changes, write_card
    from training.corpus.output.samples import write_samples
    from training.corpus.rules.pii import Redactor
    from training.data.shards import read_manifest
    from training.plots.funnel import draw_funnel

    manifest = read_manifest(folder)
    draw_funnel(folder / PICTURE, corpus.funnel, manifest["lengths"], manifest["copies"])
    write_samples(corpus, folder, config.data.seed, Redactor(config.data.pii))
    write_card(folder, corpus, changes(config))
