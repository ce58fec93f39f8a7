"""Documents beyond the limits of their sources: not trained on as text, but searched for functions.

There is more to mine for examples than there is to train on. Where whole groups (packages) are held out, a group stays
on its side of the split beyond the limits too. Of the groups without any document in the corpus, half are held out.
"""

from collections.abc import Iterator
from dataclasses import replace

from training.corpus.curation.corpus import Corpus
from training.corpus.curation.funnel import Funnel
from training.corpus.curation.splitting import SPLITS, Split, split_key
from training.corpus.rules import Rules
from training.corpus.rules.cleaning import Cleaner
from training.corpus.rules.pii import Redactor
from training.corpus.sources import Document, SourceReader


class BeyondLimits:
    """The documents of one split that `max_bytes`, `max_documents` and `max_group_share` left out.

    Only sources with `mine_beyond_limits` are read, a second time and from their beginning.
    """

    def __init__(self, corpus: Corpus, split: Split):
        self.corpus, self.split, self._rules = corpus, split, None

    def __iter__(self) -> Iterator[Document]:
        """Documents, cleaned and with personal data replaced. Call `accepts` before using one."""
        corpus, config = self.corpus, self.corpus.config
        sources = {
            name: source
            for name, source in config.named_sources.items()
            if source.mined_beyond_limits and (source.max_bytes or source.max_documents)
        }
        if not sources:
            return
        groups = {split: corpus.groups(split) for split in SPLITS}

        def belongs(group: str) -> bool:
            if config.unit != "package":
                return self.split == "train"
            key = split_key(config.seed, group)
            seen = [split for split in SPLITS if key in groups[split]]
            return (seen[0] if seen else SPLITS[key % 2]) == self.split

        redact = Redactor(config.pii)
        for name, source in sources.items():
            within, clean = corpus.ids_within_limits(name), Cleaner(config.cleaning_of(name))
            # Each function is parsed alone; parsing whole files too would take most of the time.
            rules = config.rules_of(name)
            self._rules = Rules(replace(rules, limits=rules.limits | {"unparsable": False}))
            reader = SourceReader(source, name, Funnel(), key=config.key_of(name), seed=config.seed, groups=belongs)
            for document in reader:
                if document.id not in within:
                    yield replace(document, text=redact(clean(document.text).text).text)

    def accepts(self, document: Document) -> bool:
        """Whether the document given last passes the rules and, for training, holds no evaluation item."""
        if self._rules.check(document.text):
            return False
        return self.split == "validation" or not any(
            known.is_contaminated(known.matches(document.text)) for known in self.corpus.decontaminators
        )
