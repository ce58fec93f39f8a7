"""The pretraining text of a recipe that the planner writes: its sources and shares, as the key `data`."""

from training.planner.plan import Plan
from training.planner.recipes.lines import line, rounded_up
from training.planner.recipes.mixtures import Source, mixture
from training.planner.units import as_decimal_bytes

# Bytes of text from which on files are downloaded first: a single process reads a data set on the Hub.
LOCAL = 150 * 10**9
_MARGIN = 1.1  # of text over what the run reads, for what the steps of `prepare` drop


def sources_of(plan: Plan) -> dict[Source, float]:
    """The sources of a plan's text, and the bytes of clean text to take of each."""
    shares = mixture(plan.shape.tokens, large=needs_download(plan))
    return {source: share * plan.text_bytes.expected * _MARGIN for source, share in shares.items()}


def needs_download(plan: Plan) -> bool:
    """Whether the text is so much that its files are downloaded first, and many machines read them."""
    return plan.text_bytes.expected > LOCAL


def downloads(plan: Plan) -> list[str]:
    """Remarks with the commands that download the files of the sources, if the recipe reads files."""
    if not needs_download(plan):
        return []
    command = "#   hf download {0} --repo-type dataset --local-dir {1}"
    commands = [command.format(source.path, _folder(source)) for source in sources_of(plan)]
    return ["# First download the files, to storage that all machines see:", *commands]


def data_lines(plan: Plan, remark: str) -> list[str]:
    """The key `data`, for tokenizer and prepare. The text beyond a source's own is left to further passes over it."""
    lines, total = [line("data:", remark), "  sources:"], 0.0
    for source, size in sources_of(plan).items():
        total += size
        subset, files = source.subset(size), f"{_folder(source)}/{source.files}"
        lines += [f"    {source.name}:", f"      # {source.remark}"]
        lines += [f"      path: {files if needs_download(plan) else source.path}"]
        if subset and not needs_download(plan):
            lines += [f"      subset: {subset}"]
        if source.text_column != "text":
            lines += [f"      text_column: {source.text_column}"]
        lines += [line(f"      license: {source.license}", "each document has its own" * (source.license == "other"))]
        lines += [line(f"      weight: {source.weight}", "share of the tokens")]
        lines += [line(f"      max_bytes: {rounded_up(min(size, source.available))}", "of clean text")]
        if size > source.available:
            lines += [line(f"      max_epochs: {size / source.available:.1f}", "passes, to reach its share")]
    fraction = min(0.01, max(10**7, 2e-4 * total) / total)
    return [*lines, line(f"  validation_fraction: {fraction:.1g}", f"{as_decimal_bytes(fraction * total)} of text")]


def _folder(source: Source) -> str:
    return f"data/{source.path.split('/')[1]}"
