"""scratch prepare: documents in; token shards, instruction pairs, preference pairs and task items out.

Reads text, drops what is broken, generated or repeated, holds out a validation split that nothing leaks into, and
writes the tokens in datatrove's layout, with a picture and a data card for the Hub. From Python source it also mines
functions: signature and summary in, the function out. Every document read is accounted for in the printed table and in
manifest.json.
"""

import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from training.common.errors import UserError
from training.common.recipe import option, parse, required
from training.common.stage import LANGUAGE_MODELS, Stage, check_stage, digest
from training.corpus.curation.config import DataConfig
from training.corpus.curation.corpus import Corpus, corpus_digest, open_corpus
from training.corpus.curation.curation import Curation
from training.corpus.curation.splitting import SPLITS, Split
from training.corpus.dedup.decontamination import Decontaminator
from training.corpus.dedup.evaluation_items import texts_in
from training.corpus.examples.functions import Function, fingerprints, mine_functions
from training.corpus.examples.pairs import fitting, instruction, preferences
from training.corpus.examples.tasks import TASKS
from training.corpus.execution.config import EngineConfig
from training.corpus.execution.distributed import Cluster
from training.corpus.output.audit import explain, write_contaminated, write_evidence
from training.corpus.output.card import CARD, PICTURE, changes, label, write_card
from training.corpus.output.distributed_encoding import encode_spread
from training.corpus.output.encoding import Encoder, Writer, describe_shares, encode_here, write_mixture
from training.corpus.output.histogram import by_powers_of_two
from training.corpus.output.samples import write_samples
from training.corpus.rules.pii import Redactor
from training.data.shards import read_manifest, write_manifest
from training.model_io.tokenizers import open_tokenizer

# They do not change what is written.
RUNTIME_KEYS = frozenset({"workers", "engine", "explain"})
Records = dict[str, dict[str, list[dict[str, Any]]]]  # by kind and file
Counts = dict[str, dict[str, int]]


@dataclass
class PairConfig:
    train: int = option(0, "records at most from the training packages; 0 for text without Python functions")
    validation: int = option(0, "records at most from the held-out packages")


@dataclass
class PrepareConfig:
    output_dir: str = required("folder for the shards")
    tokenizer: str = required("folder with tokenizer.json, from `scratch tokenizer` or of any Hugging Face model")
    data: DataConfig = option(DataConfig, "the documents")
    instructions: PairConfig = option(PairConfig, "signature and summary to function, for `scratch sft`")
    preferences: PairConfig = option(PairConfig, "right body over wrong body, for `scratch dpo`")
    tasks: int = option(0, "items of each multiple-choice task for lm-eval, from the held-out packages")
    explain: int = option(0, "show this many of the documents that each rule dropped, with what condemned them")
    workers: int = option(0, "processes that clean and judge documents; 0 for one each core")
    engine: EngineConfig = option(EngineConfig, "what spreads that, and the tokenizer's work, over many machines")
    max_tokens: int = option(256, "the longest instruction, question and answer in the chat template, in tokens")

    def __post_init__(self):
        if self.engine.kind and self.data.is_python:
            raise ValueError(
                "'engine': the Python corpus is read by one process; give a 'data.path', or 'data.sources'"
            )
        if self.engine.kind and self.workers:
            raise ValueError("'workers' has no effect beside an 'engine'; give 'engine.workers'")

    @property
    def pairs(self) -> bool:
        wanted = (self.instructions, self.preferences)
        return self.tasks > 0 or any(count > 0 for pair in wanted for count in (pair.train, pair.validation))


CONFIG = PrepareConfig


def main(arguments: list[str]) -> None:
    config = parse(PrepareConfig, arguments, __doc__)
    check_stage(config.tokenizer, "tokenizer", *LANGUAGE_MODELS, key="tokenizer")
    tokenizer = load_tokenizer(config)
    inputs = {"tokenizer": digest(config.tokenizer, "tokenizer"), "data": corpus_digest(config.data)}
    stage = Stage("prepare", config.output_dir, config, inputs, arguments, runtime_keys=RUNTIME_KEYS)
    if stage.is_current():
        print_explanations(config)
        return
    folder = stage.begin()
    work = folder / "work"  # what an interrupted run goes on from
    cluster = Cluster(config.engine, work / "tasks") if config.engine.kind else None
    corpus = open_corpus(config.data, work, config.workers, cluster)
    if config.pairs:
        held_out, asked = write_held_out(corpus, tokenizer, config, folder)
    check_sources_left(corpus, config.data)
    encoder = Encoder(Path(config.tokenizer), tokenizer.eos_token_id, len(tokenizer))
    write = encode_spread(corpus, encoder, cluster) if cluster else encode_here(corpus, encoder)
    metrics = write_shards(corpus, write, encoder, config, folder, work)
    print(corpus.funnel)
    print_notes(config, folder)
    if config.pairs:
        taught = write_pairs(corpus, tokenizer, config, folder, held_out)
        counts = {kind: taught.get(kind, {}) | numbers for kind, numbers in asked.items()}
        for kind, numbers in counts.items():
            print(f"{kind}: " + ", ".join(f"{number:,} {name}" for name, number in numbers.items()))
        metrics |= counts
    write_report(corpus, config, folder)
    shutil.rmtree(work, ignore_errors=True)  # there is none of the Python corpus
    print_explanations(config, folder)
    train = metrics["train"]
    wrote = f"{train['tokens'] / 1e6:.2f} M training tokens, {train['bytes_per_token']:.2f} bytes each"
    out = config.output_dir
    print(f"look at {out}/{PICTURE} and {CARD}; to publish: scratch push {out} YOUR_NAME/DATA --dataset")
    stage.finish(metrics, wrote)


def print_explanations(config: PrepareConfig, folder: Path | None = None) -> None:
    folder = folder or Path(config.output_dir)
    if config.explain and not config.data.is_python:
        print(explain(folder, config.explain))


def load_tokenizer(config: PrepareConfig) -> PreTrainedTokenizerFast:
    folder = Path(config.tokenizer)
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"'tokenizer': {folder} holds no tokenizer.json; run `scratch tokenizer` first")
    tokenizer = open_tokenizer(folder, "tokenizer")
    if tokenizer.eos_token_id is None:
        raise UserError(f"'tokenizer': {folder} names no eos_token, which has to end each document")
    if config.pairs and tokenizer.chat_template is None:
        raise UserError(f"'tokenizer': {folder} has no chat template, which instructions need; set their counts to 0")
    return tokenizer


def check_sources_left(corpus: Corpus, config: DataConfig) -> None:
    for name in config.sources:
        if not corpus.size("train", name):
            why = corpus.funnel.reasons() or "it is empty"
            raise UserError(f"'{config.key_of(name)}': nothing of it is left to train on; dropped in all: {why}")


def write_shards(
    corpus: Corpus, write: Writer, encoder: Encoder, config: PrepareConfig, folder: Path, work: Path
) -> dict[str, Any]:
    """Both splits and the manifest; returns the counts of each split."""
    splits, notes, shares = {}, {}, {}
    if isinstance(corpus, Curation):
        notes |= write_evidence(corpus, folder)
    if config.data.sources:
        splits["train"], shares = write_mixture(write, config.data, encoder, folder, work)
        print(describe_shares(shares))
    for split in SPLITS:
        if split not in splits:
            splits[split], _ = write(folder, split, split)
    tokens = {split: entry["tokens"] for split, entry in splits.items()}
    if shares:  # the mixture repeats and leaves out, the funnel counts what there is
        tokens["train"] = sum(row["tokens"] for row in shares.values())
    corpus.funnel.count_tokens(tokens)
    notes = {"funnel": corpus.funnel.as_dict()} | notes
    notes["sources"] = {
        label(config.data, name): {"license": source.license} | corpus.counts(name) | shares.get(name, {})
        for name, source in config.data.named_sources.items()
    }
    notes["evaluation_items"] = dict(corpus.items)
    if corpus.items:
        write_contaminated(corpus, folder)
    notes["lengths"] = by_powers_of_two(corpus.lengths())
    notes["copies"] = {kind: by_powers_of_two(counts) for kind, counts in corpus.copies.items()}
    write_manifest(folder, splits, Path(config.tokenizer), encoder.vocab_size, notes)
    return {
        split: {
            "tokens": entry["tokens"],
            "documents": entry["documents"],
            "bytes": entry["bytes"],
            "bytes_per_token": entry["bytes"] / entry["tokens"],
        }
        for split, entry in splits.items()
    }


def write_report(corpus: Corpus, config: PrepareConfig, folder: Path) -> None:
    """The picture, samples and the data card, of shards that are written."""
    from training.plots.funnel import draw_funnel  # imports matplotlib

    manifest = read_manifest(folder)
    draw_funnel(folder / PICTURE, corpus.funnel, manifest["lengths"], manifest["copies"])
    write_samples(corpus, folder, config.data.seed, Redactor(config.data.pii))
    write_card(folder, config.data, changes(config), corpus.funnel)


def print_notes(config: PrepareConfig, folder: Path) -> None:
    """What was counted beside the funnel."""
    notes = read_manifest(folder)
    if encodings := notes.get("encodings"):
        found = ", ".join(f"{count:,} {name}" for name, count in encodings.items())
        print(f"documents that were not UTF-8: {found}")
    if counts := notes["evaluation_items"]:
        words = config.data.decontamination.min_words
        print(
            f"evaluation items: {counts['searched']:,} looked for, {counts['too short']:,} too short to look for "
            f"(no text of {words} words)"
        )


def write_held_out(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, config: PrepareConfig, folder: Path
) -> tuple[list[Function], Counts]:
    """Write what models will be asked: instructions, preferences and tasks from held-out functions. Training documents
    that hold one of these items are dropped.

    Returns:
        The functions, and how many records there are of each kind.
    """
    held_out = list(fitting(mine_functions(corpus.everything("validation")), tokenizer, config.max_tokens))
    check_functions(held_out, config)
    records = pair_records(held_out, "validation", tokenizer.backend_tokenizer, config)
    options = (held_out, tokenizer.backend_tokenizer, config.tasks, config.data.seed)
    records["tasks"] = {name: make(*options) for name, make in TASKS.items()}
    items = (
        (f"{kind}/{name}.jsonl:{number}", text)
        for kind, files in records.items()
        for name, rows in files.items()
        for number, row in enumerate(rows, 1)
        for text in texts_in(row)
    )
    wanted = config.data.decontamination
    decontaminator = Decontaminator(items, wanted.ngram, wanted.min_words)
    if any(decontaminator.counts.values()):  # none where nothing but pairs to train on is wanted
        corpus.keep_out(decontaminator)
    return held_out, write_records(folder, records)


def write_pairs(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, config: PrepareConfig, folder: Path, held_out: list[Function]
) -> Counts:
    """Write instructions and preferences to train on, of functions unlike the held-out ones; returns how many."""
    known = set().union(*map(fingerprints, held_out))
    candidates = (
        function
        for function in mine_functions(corpus.everything("train"))
        if not known.intersection(fingerprints(function))
    )
    wanted = config.instructions.train + config.preferences.train
    train = list(itertools.islice(fitting(candidates, tokenizer, config.max_tokens), wanted))
    if wanted:
        check_functions(train, config)
    return write_records(folder, pair_records(train, "train", tokenizer.backend_tokenizer, config))


def check_functions(functions: list[Function], config: PrepareConfig) -> None:
    if not functions:
        raise UserError(
            f"'instructions': {config.data.where} holds no Python function with a one-line summary of at most "
            f"{config.max_tokens} tokens; set the counts of instructions, preferences and tasks to 0"
        )


def pair_records(functions: list[Function], split: Split, tokenizer: Tokenizer, config: PrepareConfig) -> Records:
    # The two kinds of pairs share no function as long as there are enough of them.
    asked = functions[: getattr(config.instructions, split)]
    paired = functions[::-1][: getattr(config.preferences, split)]
    return {
        "instructions": {split: [instruction(function) for function in asked]},
        "preferences": {split: preferences(paired, tokenizer, config.data.seed)},
    }


def write_records(folder: Path, records: Records) -> Counts:
    for kind, files in records.items():
        (folder / kind).mkdir(exist_ok=True)
        for name, rows in files.items():
            with (folder / kind / f"{name}.jsonl").open("w", encoding="utf-8") as stream:
                stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return {kind: {name: len(rows) for name, rows in files.items()} for kind, files in records.items()}
