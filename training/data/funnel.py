"""The account of a corpus: every document read has exactly one outcome, kept or dropped by one named reason."""

from typing import Any

STEPS = ("reading", "rules", "limit", "duplicates", "decontamination")  # in the order in which a document meets them
Row = dict[str, Any]


class Funnel:
    """Documents and bytes of text by what became of them.

    Args:
        content: what `as_dict` of another one gave.
        step: that drops documents, unless another is said.

    Attributes:
        kept: documents and bytes.
        dropped: by reason, documents and bytes and the step that has the reason.
        trimmed: by reason, bytes that were taken out of texts that went on.
        splits: of the kept ones, by split.
    """

    def __init__(self, content: dict[str, Any] | None = None, step: str = "rules"):
        content, self.step = content or {}, step
        self.kept: Row = content.get("kept", {"documents": 0, "bytes": 0})
        self.dropped: dict[str, Row] = content.get("dropped", {})
        self.trimmed: dict[str, int] = content.get("trimmed", {})
        self.splits: dict[str, Row] = content.get("splits", {})

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
        """Documents that had been kept so far are dropped after all."""
        if documents:
            self.kept["documents"] -= documents
            self.kept["bytes"] -= size
            self.drop(reason, size, step, documents)

    def trim_kept(self, reason: str, size: int) -> None:
        """A text that had been kept so far loses some bytes."""
        self.kept["bytes"] -= size
        self.trim(reason, size)

    def add(self, other: "Funnel") -> None:
        """The outcomes of more documents."""
        for unit in ("documents", "bytes"):
            self.kept[unit] += other.kept[unit]
        for reason, row in other.dropped.items():
            self.drop(reason, row["bytes"], row["step"], row["documents"])
        for reason, size in other.trimmed.items():
            self.trim(reason, size)

    def take(self) -> dict[str, Any]:
        """All of it so far, as JSON; from here on it counts anew."""
        content = self.as_dict()
        self.__init__(step=self.step)
        return content

    @property
    def read(self) -> Row:
        rows = [self.kept, *self.dropped.values()]
        return {
            "documents": sum(row["documents"] for row in rows),
            "bytes": sum(row["bytes"] for row in rows) + sum(self.trimmed.values()),
        }

    def reasons(self) -> str:
        """The reasons in a few words, most frequent first, for an error message."""
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
        }

    def __str__(self) -> str:
        content = self.as_dict()
        rows = [("read", content["read"])]
        rows += [(f"- {reason}", {"documents": 0, "bytes": size}) for reason, size in content["trimmed"].items()]
        rows += [(f"- {reason}", row) for reason, row in content["dropped"].items()]
        rows += [("kept", content["kept"]), *content["splits"].items()]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}{row['documents']:>12,}{row['bytes'] / 1e6:>10.2f} MB" for name, row in rows)
