"""Examples from functions: instruction pairs, preference pairs and task items, written beside the shards.

Held-out examples come first: training documents that hold one of them are dropped, before functions to train on are
mined from the others.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from training.common.errors import UserError
from training.common.progress import progress_bar
from training.corpus.curation.beyond_limits import BeyondLimits
from training.corpus.curation.corpus import Corpus
from training.corpus.curation.splitting import Split
from training.corpus.dedup.decontamination import Decontaminator
from training.corpus.dedup.evaluation_items import texts_in
from training.corpus.examples.config import PairConfig
from training.corpus.examples.functions import Function, fingerprints, mine_functions
from training.corpus.examples.pairs import fitting, instruction, preferences
from training.corpus.examples.tasks import TASKS

Records = dict[str, dict[str, list[dict[str, Any]]]]  # by kind and file
Counts = dict[str, dict[str, int]]


@dataclass
class ExampleWriter:
    """Writes the examples of a corpus into a folder.

    Attributes:
        tasks: items of each multiple-choice task.
        max_tokens: maximum tokens of an instruction pair, rendered by the chat template.
        held_out: the functions of the validation split, once `write_held_out` has mined them.
    """

    corpus: Corpus
    tokenizer: PreTrainedTokenizerFast
    folder: Path
    instructions: PairConfig
    preferences: PairConfig
    tasks: int
    max_tokens: int
    held_out: list[Function] = field(default_factory=list)

    def write_held_out(self) -> Counts:
        """Write the evaluation examples, and drop training documents that contain one.

        Returns:
            Numbers of records, by kind and file.

        Raises:
            UserError: no functions, or no text left to train on.
        """
        self.held_out = list(fitting(functions_of(self.corpus, "validation"), self.tokenizer, self.max_tokens))
        self._check(self.held_out)
        records = self._pairs(self.held_out, "validation")
        options = (self.held_out, self.tokenizer.backend_tokenizer, self.tasks, self.corpus.config.seed)
        records["tasks"] = {name: make(*options) for name, make in TASKS.items()}
        items = (
            (f"{kind}/{name}.jsonl:{number}", text)
            for kind, files in records.items()
            for name, rows in files.items()
            for number, row in enumerate(rows, 1)
            for text in texts_in(row)
        )
        settings = self.corpus.config.decontamination
        decontaminator = Decontaminator(items, settings.ngram, settings.min_words)
        if any(decontaminator.counts.values()):  # empty if only training pairs are requested
            self.corpus.keep_out(decontaminator)
        return write_records(self.folder, records)

    def write_training(self) -> Counts:
        """Write instructions and preferences to train on, from functions unlike the held-out ones."""
        known = set().union(*map(fingerprints, self.held_out))
        candidates = (
            function
            for function in functions_of(self.corpus, "train")
            if not known.intersection(fingerprints(function))
        )
        count = self.instructions.train + self.preferences.train
        train = list(itertools.islice(fitting(candidates, self.tokenizer, self.max_tokens), count))
        if count:
            self._check(train)
        return write_records(self.folder, self._pairs(train, "train"))

    def _check(self, functions: list[Function]) -> None:
        if not functions:
            raise UserError(
                f"'instructions': {self.corpus.config.where} holds no Python function with a one-line summary of at "
                f"most {self.max_tokens} tokens; set the counts of instructions, preferences and tasks to 0"
            )

    def _pairs(self, functions: list[Function], split: Split) -> Records:
        # The two kinds of pairs share no function as long as there are enough functions.
        answered = functions[: getattr(self.instructions, split)]
        paired = functions[::-1][: getattr(self.preferences, split)]
        seed = self.corpus.config.seed
        return {
            "instructions": {split: [instruction(function) for function in answered]},
            "preferences": {split: preferences(paired, self.tokenizer.backend_tokenizer, seed)},
        }


def functions_of(corpus: Corpus, split: Split) -> Iterator[Function]:
    """Functions of the documents of a split, then of those beyond the limits of their sources."""
    seen: set[str] = set()
    beyond = BeyondLimits(corpus, split)
    with progress_bar(desc=f"mining {split}", unit=" documents") as bar:

        def counted(documents):
            for document in documents:
                yield document
                bar.update()

        yield from mine_functions(counted(corpus.documents(split)), seen)
        yield from mine_functions(counted(beyond), seen, beyond.accepts)


def write_records(folder: Path, records: Records) -> Counts:
    """Write records as JSON lines, a folder for each kind; returns their numbers."""
    for kind, files in records.items():
        (folder / kind).mkdir(exist_ok=True)
        for name, rows in files.items():
            with (folder / kind / f"{name}.jsonl").open("w", encoding="utf-8") as stream:
                stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return {kind: {name: len(rows) for name, rows in files.items()} for kind, files in records.items()}
