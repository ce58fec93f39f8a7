"""The fingerprint of the documents of a recipe: changes when any of their inputs changes."""

import hashlib
from pathlib import Path

from training.common.stage import digest
from training.corpus.curation.config import DataConfig
from training.corpus.dedup.evaluation_items import task_files
from training.corpus.sources import check_distinct, source_digest


def corpus_digest(config: DataConfig) -> str:
    """A hash of all inputs: installed packages and versions, contents of files or ids of datasets, and the files that
    the steps read.

    Raises:
        UserError: no such file.
    """
    check_distinct({config.key_of(name): source for name, source in config.named_sources.items()})
    digests = [f"{name}:{source_digest(source, config.key_of(name))}" for name, source in config.named_sources.items()]
    for path in map(Path, config.decontamination.evaluation):
        digests += [digest(file, "data.decontamination.evaluation") for file in [*task_files(path), path]]
    rules = {config.rules_of(name).profanity for name in config.named_sources} - {None}
    digests += [digest(path, "rules.profanity") for path in sorted(rules)]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
