"""The pages of the documentation: the files, headings, commands and flags that they name exist."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from test_rooms import ROOMS

from training import cli
from training.commands.run import assign_overrides, split_arguments
from training.stages.recipe_folders import recipes_in
from training.stages.yaml_values import read_yaml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "recipes").rglob("*.md"))
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]

# The first part of a path inside the repository, in code spans and commands.
FOLDERS = ("modeling_scratch", "training", "recipes", "benchmarks", "docs", "tests")
IN_CODE = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*[\w/]")
LINK = re.compile(r"\]\(([^)\s]+)\)")
SCRATCH = re.compile(r"(?:\bscratch|-m training) ((?:-|\w)[\w-]*)(.*)")
# The commands with options of our own; the others take TRL's (tests/tuning).
OUR_OPTIONS = (
    *("tokenizer", "prepare", "pretrain", "classify", "evaluate", "export", "import", "push", "plot"),
    *("chat", "complete", "serve", "arena", "attention"),
)
EVERYWHERE = ("help", "print_config")
FLAG = re.compile(r"--([A-Za-z_][\w.-]*)")


def without_code_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def code_of(text: str) -> list[str]:
    """The lines of all blocks of commands, continuation lines joined, and all code spans."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"((?:^    \S.*\n)+)", text, flags=re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    spans = re.findall(r"`([^`]+)`", without_code_blocks(text))
    return [line.strip() for line in lines] + [" ".join(span.split()) for span in spans]


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", without_code_blocks(page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()) for title in titles)
    return {title.strip().replace(" ", "-") for title in plain}


def scratch_commands(page: Path) -> list[tuple[str, str]]:
    """The command and the rest of the line of every `scratch COMMAND ...` in the code of a page."""
    found = [SCRATCH.search(line) for line in code_of(page.read_text(encoding="utf-8"))]
    return [(match[1], match[2]) for match in found if match]


@pytest.fixture(params=PAGES, ids=NAMES)
def page(request) -> Path:
    return request.param


def test_links_lead_to_files_and_headings(page):
    for target in LINK.findall(without_code_blocks(page.read_text(encoding="utf-8"))):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not heading or heading in anchors(file), target


def test_files_named_in_code_exist(page):
    for line in code_of(page.read_text(encoding="utf-8")):
        for name in IN_CODE.findall(line):
            assert (ROOT / name).exists() or "NAME" in name or "*" in line, f"{name} in: {line}"


def test_commands_exist(page):
    for command, rest in scratch_commands(page):
        assert command in cli.COMMANDS or command in ("COMMAND", "STAGE", "VERB") or command.startswith("--"), (
            f"{command} in: scratch {command}{rest}"
        )


def test_benchmarks_exist(page):
    for line in code_of(page.read_text(encoding="utf-8")):
        for name, rest in re.findall(r"python -m benchmarks\.(\w+)(.*)", line):
            file = ROOT / "benchmarks" / f"{name}.py"
            assert file.is_file(), line
            source = file.read_text(encoding="utf-8")
            for flag in FLAG.findall(re.sub(r"'[^']*'", "", rest)):  # in quotes stands another command
                assert re.search(rf'"(--)?{flag}"', source), f"--{flag} in: {line}"


@cache
def flags_of(command: str) -> frozenset[str]:
    """What `scratch COMMAND --help` lists."""
    import contextlib
    import io

    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        cli.main([command, "--help"])
    return frozenset(FLAG.findall(output.getvalue()))


def is_flag_of(command: str, flag: str) -> bool:
    """Whether a flag is listed, as it is or below a mapping (`--model.hidden_size`), names of sources left open."""
    if flag in EVERYWHERE:
        return True
    listed = flags_of(command)
    parts = flag.split(".")
    beginnings = [".".join(parts[: length + 1]) for length in range(len(parts))]
    named = re.sub(r"^data\.sources\.\w+\.", "data.sources.NAME.", flag)
    return any(beginning in listed for beginning in (*beginnings, named))


def test_flags_exist(page):
    for command, rest in scratch_commands(page):
        if command in OUR_OPTIONS:
            for flag in FLAG.findall(rest):
                assert is_flag_of(command, flag), f"--{flag} in: scratch {command}{rest}"


def test_flags_of_a_whole_run_exist(page):
    for command, rest in scratch_commands(page):
        words, keys = split_arguments(shlex.split(rest, comments=True) if command == "run" else [])
        if not words or not (ROOT / words[0]).is_dir() or "--copy_to" in words:
            continue
        recipes = recipes_in(ROOT / words[0])
        assigned = assign_overrides(keys, {stage: read_yaml(path) for stage, path in recipes.items()})
        for stage, overrides in assigned.items():
            for flag in FLAG.findall(" ".join(overrides)) if stage in OUR_OPTIONS else ():
                assert is_flag_of(stage, flag), f"--{flag} of {stage} in: scratch run{rest}"


def test_every_recipe_has_its_row():
    page = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("|")]
    for folder in (path.parent for path in (ROOT / "recipes").glob("*/pretrain.yaml")):
        assert any(folder.name in row for row in rows), folder.name
        stages = ", ".join(recipes_in(folder))
        assert f"| {stages} |" in page, f"{folder.name} has the stages {stages}"
    for folder in (path for path in (ROOT / "recipes").iterdir() if path.is_dir()):
        assert folder.name in page, folder.name


def test_every_page_is_in_the_table_of_contents():
    contents = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name == "README.md" or f"]({path.name})" in contents, path.name


def test_the_readme_names_every_command_and_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= 150
    assert all(f"`{command}`" in text for command in cli.COMMANDS)


def test_the_map_shows_the_rooms_in_their_order():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```text\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert tuple(line.split()[0] for line in block.splitlines()) == ROOMS
