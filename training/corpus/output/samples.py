"""samples.md: kept documents beside dropped ones, on a page that is safe to publish."""

import itertools
import json
import re
from collections import Counter
from pathlib import Path

from training.common.tables import as_markdown
from training.corpus.curation.corpus import Corpus
from training.corpus.curation.document_pipeline import SAMPLE_CHARACTERS
from training.corpus.output.audit import DROPPED
from training.corpus.rules.pii import Redactor

SAMPLES_PAGE = "samples.md"
_OF_EACH = 2  # dropped documents per reason
_KEPT = 5  # kept documents to show if nothing was dropped
_WIDTH = 240  # characters of a document
_MARKS = re.compile(r"[&<>\\`*_~|#!$^:@{}\[\]]|(?<=[wW]{3})\.")  # of Markdown, HTML, formulas, and addresses


def plain(text: str) -> str:
    """A text escaped for Markdown: no markup, tag, link or table border in it has an effect."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return _MARKS.sub(lambda match: f"&#{ord(match[0])};", line)


def write_samples(corpus: Corpus, folder: Path, seed: int, redact: Redactor) -> None:
    """Write samples.md: training documents drawn by the seed beside the first ones of every reason in dropped.jsonl."""

    def cell(identity: str, text: str) -> str:
        shown = redact(text).text
        # Only the end of the name: folders may contain a user name.
        name, short = plain(identity.rsplit("/")[-1]), plain(shown[:_WIDTH])
        return f"**{name}** {short}" + " …" * (len(shown) > _WIDTH)

    dropped, counts = [], Counter()
    with (folder / DROPPED).open(encoding="utf-8") as stream:
        for sample in map(json.loads, stream):
            counts[sample["reason"]] += 1
            if counts[sample["reason"]] <= _OF_EACH:
                dropped.append(sample)
    dropped.sort(key=lambda sample: sample["reason"])
    drawn = corpus.sample(len(dropped) or _KEPT, seed)
    kept = [cell(document.id, document.text[:SAMPLE_CHARACTERS]) for document in drawn]
    table = [["kept", "dropped", "by"]]
    for one, other in itertools.zip_longest(kept, dropped):
        cells = [cell(other["id"], other["text"]), plain(redact(other["why"]).text)] if other else ["", ""]
        table.append([one or "", *cells])
    page = (
        "# Samples\n\nThe beginnings of documents: kept ones, drawn by the seed, and the first that each rule dropped, "
    )
    page += "with the value that was out of bounds.\n\n" + as_markdown(table).replace("---:", "---")
    (folder / SAMPLES_PAGE).write_text(page, encoding="utf-8")
