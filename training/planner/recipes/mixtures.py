"""Data of the recipes that the planner writes: pretraining sources by the size of the run, tuning data, evaluations."""

from dataclasses import dataclass

GB = 10**9


@dataclass(frozen=True)
class Source:
    """A source of documents on the Hub.

    Attributes:
        subsets: names of parts of the data set, with their bytes of text; the first that is large enough is read.
        text_column: of the text.
        license: by its Hub name; `other` where each document has its own.
        files: glob of the data set's files, in a folder that it was downloaded to.
        remark: for the recipe.
        weight: in a mixture with others.
    """

    name: str
    path: str
    subsets: tuple[tuple[str | None, float], ...]
    license: str
    text_column: str = "text"
    files: str = "**/*.parquet"
    remark: str = ""
    weight: int = 1

    def subset(self, size: float) -> str | None:
        """The part that holds so many bytes of text; the largest if none does."""
        return next((name for name, text in self.subsets if text >= size), self.subsets[-1][0])

    @property
    def available(self) -> float:
        """Bytes of text of the largest part."""
        return self.subsets[-1][1]


# Sizes are those of the data sets' cards, at about 4.5 bytes of text per token of theirs.
STORIES = Source(
    "stories",
    "roneneldan/TinyStories",
    ((None, 1.9 * GB),),
    "cdla-sharing-1.0",
    remark="short stories in the words of a four-year-old (https://arxiv.org/abs/2305.07759)",
)
WEB = Source(
    "web",
    "HuggingFaceFW/fineweb-edu",
    (("sample-10BT", 45 * GB), ("sample-100BT", 450 * GB), (None, 5_800 * GB)),
    "odc-by",
    files="data/*/*.parquet",
    remark="web pages, chosen for their educational value (https://arxiv.org/abs/2406.17557)",
    weight=17,
)
PYTHON = Source(
    "code",
    "codeparrot/codeparrot-clean",
    ((None, 50 * GB),),
    "other",
    text_column="content",
    remark="Python files of public repositories, each under its own licence",
    weight=2,
)
MANY_LANGUAGES = Source(
    "code",
    "bigcode/starcoderdata",
    ((None, 780 * GB),),
    "other",
    text_column="content",
    files="*/*.parquet",
    remark="code under permissive licences; accept its terms on the Hub first (https://arxiv.org/abs/2305.06161)",
    weight=2,
)
MATHS = Source(
    "maths",
    "HuggingFaceTB/finemath",
    (("finemath-4plus", 39 * GB), ("finemath-3plus", 138 * GB)),
    "odc-by",
    files="finemath-3plus/*.parquet",
    remark="web pages that explain mathematics (https://arxiv.org/abs/2502.02737)",
)

def mixture(tokens: int, large: bool) -> dict[Source, float]:
    """The sources of a run and their shares of the tokens.

    Args:
        tokens: of the run. Below a billion, a model learns more from a narrow subject.
        large: read files of data sets that are large enough for hundreds of billions of tokens.
    """
    sources = [STORIES] if tokens < 10**9 else [WEB, MANY_LANGUAGES if large else PYTHON, MATHS]
    total = sum(source.weight for source in sources)
    return {source: source.weight / total for source in sources}


def suites(parameters: int) -> list[str]:
    """Evaluation suites on which a model of this size can score above chance."""
    if parameters < 50 * 10**6:
        return ["small"]
    if parameters < 10**9:
        return ["lambada", "hellaswag", "arc", "piqa"]
    if parameters < 5 * 10**9:
        return ["lambada", "hellaswag", "arc", "piqa", "mmlu"]
    return ["lambada", "hellaswag", "arc", "piqa", "mmlu", "gsm8k", "humaneval"]


@dataclass(frozen=True)
class TuningData:
    """A data set on the Hub for tuning: its name, configuration, split and licence."""

    path: str
    license: str
    name: str | None = None
    split: str = "train"


def conversations(parameters: int) -> TuningData:
    """Conversations for SFT: short ones for small models."""
    if parameters < 10**9:
        return TuningData("HuggingFaceTB/smol-smoltalk", "apache-2.0")
    return TuningData("HuggingFaceTB/smoltalk", "apache-2.0", name="all")


PREFERENCES = TuningData("HuggingFaceH4/ultrafeedback_binarized", "mit", split="train_prefs")
