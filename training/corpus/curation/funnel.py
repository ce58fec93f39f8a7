"""The funnel: every document read is counted once, as kept or as dropped for one reason."""

from typing import Any

STEPS = ("reading", "rules", "limit", "duplicates", "decontamination")  # in the order in which they apply to a document
Row = dict[str, Any]
ESTIMATED = "~ estimated from bytes, at the tokens per byte of the kept text"


class Funnel:
    """Counts of documents and bytes of text by outcome.

    Args:
        content: from `as_dict` of another funnel.
        step: default step of dropped documents.

    Attributes:
        kept: documents and bytes.
        dropped: by reason: documents, bytes, and the step that has the reason.
        trimmed: by reason: bytes removed from texts that were kept.
        splits: documents and bytes kept, by split.
        tokens_per_byte: rate in the kept text; None until `count_tokens`.
    """

    def __init__(self, content: dict[str, Any] | None = None, step: str = "rules"):
        content, self.step = content or {}, step
        self.kept: Row = content.get("kept", {"documents": 0, "bytes": 0})
        self.dropped: dict[str, Row] = content.get("dropped", {})
        self.trimmed: dict[str, int] = content.get("trimmed", {})
        self.splits: dict[str, Row] = content.get("splits", {})
        self.tokens_per_byte: float | None = content.get("tokens_per_byte")

    def keep(self, size: int) -> None:
        self.kept["documents"] += 1
        self.kept["bytes"] += size

    def drop(self, reason: str, size: int, step: str | None = None, documents: int = 1) -> None:
        row = self.dropped.setdefault(reason, {"documents": 0, "bytes": 0, "step": step or self.step})
        row["documents"] += documents
        row["bytes"] += size

    def trim(self, reason: str, size: int) -> None:
        if size:
            self.trimmed[reason] = self.trimmed.get(reason, 0) + size

    def drop_kept(self, reason: str, size: int, step: str, documents: int) -> None:
        """Move documents from the kept to the dropped counts."""
        if documents:
            self.kept["documents"] -= documents
            self.kept["bytes"] -= size
            self.drop(reason, size, step, documents)

    def trim_kept(self, reason: str, size: int) -> None:
        """Move bytes from the kept to the trimmed counts."""
        self.kept["bytes"] -= size
        self.trim(reason, size)

    def count_tokens(self, tokens: dict[str, int]) -> None:
        """Note the tokens of each split. Dropped text was never tokenized: its tokens are estimated from its bytes, at
        the rate of the kept text."""
        self.kept["tokens"] = sum(tokens.values())
        self.tokens_per_byte = self.kept["tokens"] / self.kept["bytes"]
        for split, count in tokens.items():
            self.splits[split]["tokens"] = count
        for row in self.dropped.values():
            row["tokens"] = self._estimate(row["bytes"])

    def _estimate(self, size: int) -> int:
        return round(size * self.tokens_per_byte)

    def add(self, other: "Funnel") -> None:
        """Add the counts of another funnel."""
        for unit in ("documents", "bytes"):
            self.kept[unit] += other.kept[unit]
        for reason, row in other.dropped.items():
            self.drop(reason, row["bytes"], row["step"], row["documents"])
        for reason, size in other.trimmed.items():
            self.trim(reason, size)

    def take(self) -> dict[str, Any]:
        """The counts so far as JSON; counting then starts from zero."""
        content = self.as_dict()
        self.__init__(step=self.step)
        return content

    @property
    def read(self) -> Row:
        rows = [self.kept, *self.dropped.values(), *self._trimmed_rows().values()]
        units = ["documents", "bytes"] + ["tokens"] * (self.tokens_per_byte is not None)
        return {unit: sum(row[unit] for row in rows) for unit in units}

    def _trimmed_rows(self) -> dict[str, Row]:
        rows = {reason: {"documents": 0, "bytes": size, "step": "cleaning"} for reason, size in self.trimmed.items()}
        if self.tokens_per_byte is not None:
            for row in rows.values():
                row["tokens"] = self._estimate(row["bytes"])
        return rows

    def summary(self) -> str:
        """One line: how many documents were read, and how many are kept."""
        kept = self.kept
        return f"{self.read['documents']:,} documents read, {kept['documents']:,} kept ({kept['bytes'] / 1e6:,.2f} MB)"

    def reasons(self) -> str:
        """The reasons, most frequent first, in short form for an error message."""
        ordered = sorted(self.dropped.items(), key=lambda item: -item[1]["documents"])
        return ", ".join(f"{row['documents']} {reason}" for reason, row in ordered)

    def as_dict(self) -> dict[str, Any]:
        """The funnel from top to bottom, as JSON."""

        def place(item: tuple[str, Row]) -> tuple[int, int, str]:
            reason, row = item
            return STEPS.index(row["step"]), -row["bytes"], reason

        return {
            "read": self.read,
            "trimmed": dict(sorted(self.trimmed.items())),
            "dropped": dict(sorted(self.dropped.items(), key=place)),
            "kept": self.kept,
            "splits": self.splits,
        } | ({} if self.tokens_per_byte is None else {"tokens_per_byte": self.tokens_per_byte})

    def losses(self) -> dict[str, Row]:
        """Trimmed and dropped text by reason, from top to bottom. The `step` of trimmed text is cleaning, unless
        documents were dropped for the same reason, as those beyond a limit."""
        trimmed, dropped = self._trimmed_rows(), {}
        for reason, row in self.as_dict()["dropped"].items():
            cut = trimmed.pop(reason, {})
            dropped[reason] = row | {unit: row[unit] + cut[unit] for unit in ("bytes", "tokens") if unit in cut}
        return dict(sorted(trimmed.items())) | dropped

    def table(self) -> list[list[str]]:
        """Every step with its documents, megabytes and tokens, under a header."""
        rows = {"read": self.read} | {f"- {reason}": row for reason, row in self.losses().items()}
        rows |= {"kept": self.kept} | self.splits
        table = [["", "documents", "MB", "tokens"]]
        for name, row in rows.items():
            estimated = "" if name in ("kept", *self.splits) else "~"
            tokens = f"{estimated}{row['tokens']:,}" if "tokens" in row else ""
            table.append([name, f"{row['documents']:,}", f"{row['bytes'] / 1e6:,.2f}", tokens])
        return table

    def __str__(self) -> str:
        table = self.table()
        width = max(len(row[0]) for row in table)
        lines = [f"{name:<{width}}{documents:>12}{size:>12}{tokens:>18}" for name, documents, size, tokens in table]
        return "\n".join(line.rstrip() for line in lines) + f"\n{ESTIMATED}" * (self.tokens_per_byte is not None)
