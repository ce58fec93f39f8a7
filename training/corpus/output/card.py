"""The data card: README.md of a prepared folder, for the Hub.

Sources appear by their names in the recipe and files without their folders, which may name the user.
"""

import json
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import DatasetCardData

from training.common.tables import as_markdown
from training.corpus.curation.config import DataConfig
from training.corpus.curation.corpus import Corpus
from training.corpus.curation.funnel import ESTIMATED
from training.corpus.curation.splitting import SPLITS
from training.corpus.output.samples import SAMPLES_PAGE, plain
from training.corpus.rules import describe_rules
from training.corpus.sources.config import PYTHON, STDIN
from training.corpus.sources.files import is_local
from training.data.shards import MANIFEST

CARD, PICTURE = "README.md", "funnel.png"
# The files to publish. Others stay: the provenance names folders of this machine, and so may the lists of near
# duplicates and of contaminated documents; the latter quote evaluation items, on which nobody should train;
# dropped.jsonl quotes up to a hundred dropped documents per reason.
PUBLISHED = [CARD, PICTURE, SAMPLES_PAGE, MANIFEST, "*.ds", "*.ds.index", "*.ds.metadata"]
PUBLISHED += [f"{kind}/*.jsonl" for kind in ("instructions", "preferences", "tasks")]

# The Hub rejects a card whose licence is not one of its identifiers; these are the ones for text and code.
_LICENCES = frozenset(
    "afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc cc0-1.0 "
    "cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 "
    "cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-permissive-1.0 "
    "cdla-permissive-2.0 cdla-sharing-1.0 ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 gfdl gpl gpl-2.0 "
    "gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 mit mpl-2.0 ms-pl ncsa odbl odc-by pddl postgresql unlicense wtfpl zlib "
    "unknown other".split()
)
_SIZES = (
    *((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")),
    *((10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"), (10**11, "10B<n<100B")),
    *((10**12, "100B<n<1T"),),
)


def write_card(folder: Path, corpus: Corpus, recipe: dict[str, Any]) -> None:
    """Write README.md, from the manifest and the files that are there already.

    Args:
        recipe: what was asked for beyond the defaults; see `changes`.
    """
    config, recipe = corpus.config, without_folders(recipe)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    splits, sources = manifest["splits"], manifest["sources"]
    documents = sum(split["documents"] for split in splits.values())
    name = "Corpus of " + ", ".join(sources)
    records = _records(folder)
    head = DatasetCardData(
        pretty_name=name,
        license=licences(config),
        language=_languages(config) or None,
        size_categories=[next((size for limit, size in _SIZES if documents < limit), "n>1T")],
        task_categories=["text-generation"],
        tags=["scratch", "datatrove", "pretraining"],
        # The Hub's viewer reads records, not tokens; without records it would show the manifest.
        **({"configs": records} if records else {"viewer": False}),
    )
    train = splits["train"]
    text = [
        f"---\n{head.to_yaml()}\n---",
        f"# {plain(name)}",
        f"{documents:,} documents as tokens, to pretrain a language model on: {train['tokens'] / 1e6:,.2f} M tokens of "
        f"training text ({train['bytes'] / train['tokens']:.2f} bytes each), "
        f"{splits['validation']['tokens'] / 1e6:,.2f} M held out for validation.",
        f"![Documents and bytes that each step dropped]({PICTURE})",
        "## Sources\n\n" + as_markdown(_source_table(config, sources)) + _encodings(manifest),
        f"## Every document read\n\n{as_markdown(corpus.funnel.table())}\n{plain(ESTIMATED)}. "
        f"[Samples]({SAMPLES_PAGE}) of kept and dropped documents; every figure is in [{MANIFEST}]({MANIFEST}) too.",
        "## Steps\n\n" + "\n".join(f"- {step}" for step in _steps(corpus, manifest)),
    ]
    for of, rules in _by_source(config, lambda name: describe_rules(config.rules_of(name))):
        if rules:
            text.append(f"{of}The limits of the rules:\n\n```text\n{rules}\n```")
    text += [
        "## How to read it",
        f"Shards in the layout of datatrove's `DocumentTokenizer`: tokens as {manifest['token_dtype']}, little-endian; "
        "in the index, as uint64, where each document ends. The tokenizer's `tokenizer.json` has the SHA-256 "
        f"`{manifest['tokenizer_sha256']}`.",
        _reading(splits["train"]["file"], manifest["token_dtype"]),
        "`scratch pretrain --data FOLDER --tokenizer TOKENIZER` trains on it.",
        "## How it was made",
        "```bash\nscratch prepare --config prepare.yaml --tokenizer TOKENIZER --output_dir FOLDER\n```",
        "with this recipe, in which files are named without their folders:",
        f"```yaml\n# prepare.yaml\n{yaml.safe_dump(recipe, sort_keys=False).strip()}\n```",
    ]
    (folder / CARD).write_text("\n\n".join(text) + "\n", encoding="utf-8")


def licences(config: DataConfig) -> list[str]:
    """The Hub's identifiers for the licences of the sources; `other` where it has none."""
    given = [
        (source.license or ("other" if source.path == PYTHON else "unknown")).strip().lower()
        for source in config.named_sources.values()
    ]
    return sorted({licence if licence in _LICENCES else "other" for licence in given})


def changes(config: Any) -> dict[str, Any]:
    """The keys of a configuration that differ from their defaults, as JSON. Defaults may depend on other keys."""
    given = {}
    try:
        plain = type(config)()
    except TypeError:  # it has required keys
        plain = None
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            value = changes(value)
        elif isinstance(value, dict):
            value = {key: changes(item) if is_dataclass(item) else item for key, item in value.items()}
        default = getattr(plain, field.name) if plain else _default(type(config), field.name)
        if value != (changes(default) if is_dataclass(default) else default) and value not in ({}, []):
            given[field.name] = value
    return given


def without_folders(recipe: dict[str, Any]) -> dict[str, Any]:
    """The `changes` of `scratch prepare`'s configuration with file names instead of paths, and without keys
    that concern this machine alone."""
    of_the_machine = ("output_dir", "tokenizer", "workers", "engine", "explain")
    shown = {key: value for key, value in recipe.items() if key not in of_the_machine}
    data = dict(recipe.get("data", {}))
    if "path" in data:
        data["path"] = shown_path(data["path"])
    if "sources" in data:
        data["sources"] = {
            name: _without_lists(source | ({"path": shown_path(source["path"])} if "path" in source else {}))
            for name, source in data["sources"].items()
        }
    return shown | ({"data": _without_lists(data)} if data else {})


def _without_lists(data: dict[str, Any]) -> dict[str, Any]:
    """The recipe with the lists of evaluation items and of profanity by their names."""
    data = dict(data)
    for section, key in (("rules", "profanity"), ("decontamination", "evaluation")):
        value = data.get(section, {}).get(key)
        if value:
            names = [Path(file).name for file in value] if isinstance(value, list) else Path(value).name
            data[section] = data[section] | {key: names}
    return data


def shown_path(path: str) -> str:
    """A path to publish: the name of a dataset, of a file, or FOLDER."""
    if not is_local(path):
        return path
    return "FOLDER" if Path(path).is_dir() else Path(path).name


def label(config: DataConfig, name: str) -> str:
    """The label of a source: its name, or that of its file."""
    path = config.named_sources[name].path
    return name or (
        path if not is_local(path) and path != STDIN else "text" if Path(path).is_dir() else Path(path).name
    )


def _default(kind: type, name: str) -> Any:
    field = next(field for field in fields(kind) if field.name == name)
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else MISSING


def _records(folder: Path) -> list[dict[str, Any]]:
    """The records beside the shards, as the Hub's `configs`; datasets cannot read an empty file."""
    configs = []
    for kind in ("instructions", "preferences"):
        files = [folder / kind / f"{split}.jsonl" for split in SPLITS]
        files = [file for file in files if file.is_file() and file.stat().st_size]
        if files:
            data_files = [{"split": file.stem, "path": f"{kind}/{file.name}"} for file in files]
            configs.append({"config_name": kind, "data_files": data_files})
    return configs


def _source_table(config: DataConfig, sources: dict[str, dict[str, Any]]) -> list[list[str]]:
    mixed = any("taken" in row for row in sources.values())
    table = [["source", "read from", "licence", "documents", "MB", *(["tokens taken", "share"] if mixed else [])]]
    for (name, row), source in zip(sources.items(), config.named_sources.values(), strict=True):
        licence = row["license"] or ("that of each package" if source.path == PYTHON else "not stated")
        origin = "the installed Python source" if source.path == PYTHON else shown_path(source.path)
        origin = {"FOLDER": "a folder", STDIN: "standard input"}.get(origin, origin)
        cells = [plain(name), plain(origin), plain(licence), f"{row['documents']:,}", f"{row['bytes'] / 1e6:,.2f}"]
        table.append([*cells, *([f"{row['taken']:,}", f"{row['share']:.2%}"] if mixed else [])])
    return table


def _encodings(manifest: dict[str, Any]) -> str:
    counts = manifest.get("encodings") or {}
    found = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return f"\nDecoded from what is not UTF-8: {found} (documents)." if found else ""


def _languages(config: DataConfig) -> list[str]:
    languages = {language for name in config.named_sources for language in config.rules_of(name).languages}
    code = any(source.path == PYTHON for source in config.named_sources.values())
    return sorted(languages) + ["code"] * code


def _by_source(config: DataConfig, describe: Callable[[str], str]) -> list[tuple[str, str]]:
    """Pairs of a prefix and a description: the prefix names the sources that it applies to, and is empty for all."""
    groups: dict[str, list[str]] = {}
    for name in config.named_sources:
        groups.setdefault(describe(name), []).append(plain(name))
    return [(f"{', '.join(names)}: " if len(groups) > 1 else "", said) for said, names in groups.items()]


def _steps(corpus: Corpus, manifest: dict[str, Any]) -> list[str]:
    """The steps of the recipe, a line each."""
    config, decontaminated = corpus.config, []
    if counts := manifest["evaluation_items"]:
        decontaminated.append(
            f"decontaminated: documents that share {config.decontamination.ngram} consecutive words with one of "
            f"{counts['searched']:,} evaluation items are dropped ({counts['too short']:,} more items are too short)"
        )
    steps, dedup = [], config.dedup
    for of, names in _by_source(config, lambda name: ", ".join(config.cleaning_of(name).steps()).replace("_", " ")):
        if names:
            steps.append(f"{of}cleaned: {names}")
    for of, names in _by_source(config, lambda name: ", ".join(config.rules_of(name).languages)):
        if names:
            steps.append(f"{of}languages kept: {names}")
    for of, share in _by_source(config, lambda name: f"{config.named_sources[name].group_share or 0:.0%}"):
        if share != "0%":
            steps.append(f"{of}no package or group fills more than {share} of the text")
    for of, rules in _by_source(
        config, lambda name: describe_rules(config.rules_of(name)) and config.rules_of(name).set
    ):
        steps.append(f"{of}rules: the set {rules}" if rules else f"{of}no quality rules")
    if config.pii.kinds:
        steps.append(f"personal data replaced: {', '.join(config.pii.kinds)}")
    if dedup.exact:
        steps.append("duplicates: of texts that differ only in whitespace, the first is kept")
    if dedup.near:
        minhash = dedup.minhash
        steps.append(
            f"near duplicates: MinHash of runs of {minhash.shingle} {minhash.unit}, {minhash.bands} bands of "
            f"{minhash.rows}, from an estimated Jaccard similarity of {minhash.threshold:g}"
        )
    if dedup.lines:
        steps.append(f"lines in more than {dedup.line.max_documents} documents are dropped, except from the first one")
    sizes = {split: row["bytes"] for split, row in manifest["funnel"]["splits"].items()}
    share = sizes["validation"] / sum(sizes.values())
    held_out = f"held out for validation: {share:.1%} of the bytes, {describe_split(corpus)}"
    if config.drops_copies_across_splits:
        held_out += "; validation documents that repeat training text are dropped"
    return [*steps, *decontaminated, held_out]


def describe_split(corpus: Corpus) -> str:
    """The part of the text that is held out, and how it was chosen."""
    if corpus.split_by == "position":
        return "the end of the text"
    whole = f"whole {corpus.split_by}s, drawn by seed {corpus.config.seed}"
    if not corpus.ends:
        return whole
    others = corpus.funnel.splits["validation"]["documents"] > corpus.ends
    return "the ends of long documents" + (f" and {whole}" if others else "")


def _reading(file: str, dtype: str) -> str:
    return f'''```python
import numpy
from huggingface_hub import snapshot_download

folder = snapshot_download("YOUR_NAME/YOUR_DATA", repo_type="dataset")
tokens = numpy.memmap(f"{{folder}}/{file}", dtype="{dtype}", mode="r")
ends = numpy.fromfile(f"{{folder}}/{file}.index", dtype="uint64")
first = tokens[: ends[0]]  # the last token of a document ends it
```'''
