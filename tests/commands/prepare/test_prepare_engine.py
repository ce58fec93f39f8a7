"""`scratch prepare` spread over the tasks of an engine writes what it writes without."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from messages import refused
from prepare_inputs import save_tokenizer

from training.commands import prepare
from training.common.errors import UserError
from training.corpus.curation import blocks
from training.corpus.execution import distributed as cluster
from training.corpus.execution.config import EngineConfig
from training.corpus.execution.distributed import assign
from training.corpus.sources import partitions
from training.stages.stage import Stage

ROOT = Path(__file__).parents[3]
STAGES = ["filtering", "near_keys", "near_pairs", "line_dedup", "tokenizing"]
FOOTER = "This line is the footer of every page of the site, and says nothing at all.\n"
needs_datatrove = pytest.mark.skipif(not cluster.importlib.util.find_spec("datatrove"), reason="no datatrove")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Two folders of six and three files with duplicates across them, an evaluation set, parts of two files or so."""
    draw = random.Random(0)
    vocabulary = ["".join(draw.choices("abcdefghij", k=5)) for _ in range(2_000)]
    texts = []
    for number in range(360):
        text = " ".join(draw.choices(vocabulary, k=60)) + ".\n"
        if number % 7 == 3:
            text = texts[draw.randrange(number)] + "And then.\n"
        if number % 11 == 5:
            text = texts[draw.randrange(number)]
        if number % 4 == 1:
            text += FOOTER
        texts.append(text)
    for name, numbers in (("a", range(240)), ("b", range(240, 360))):
        (tmp_path / name).mkdir()
        for number in numbers:
            with (tmp_path / name / f"{number // 40}.jsonl").open("a") as stream:
                stream.write(json.dumps({"text": texts[number]}) + "\n")
    with (tmp_path / "a" / "2.jsonl").open("a") as stream:
        stream.write('{"text"\n{"text": " "}\n')
    (tmp_path / "a" / "5again.jsonl").symlink_to(tmp_path / "a" / "0.jsonl")
    (tmp_path / "exam.jsonl").write_text(json.dumps({"question": texts[100]}) + "\n")
    save_tokenizer(tmp_path / "tokenizer")
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 30_000)
    return tmp_path


def recipe(place: Path, name: str, data: dict, **options: object) -> list[str]:
    rules = {
        "dedup": {"near": True, "lines": True},
        "decontamination": {"evaluation": [str(place / "exam.jsonl")]},
        "validation_fraction": 0.2,
    }
    content = {"output_dir": str(place / name), "tokenizer": str(place / "tokenizer"), "data": rules | data} | options
    (place / f"{name}.yaml").write_text(json.dumps(content))
    return ["--config", str(place / f"{name}.yaml")]


def mixture(place: Path) -> dict:
    limited = {"path": str(place / "b"), "weight": 1, "max_bytes": 30_000, "max_epochs": 3}
    return {"sources": {"a": {"path": str(place / "a"), "weight": 2, "max_broken": 0.5}, "b": limited}}


def contents(folder: Path) -> dict[str, bytes]:
    records = ("provenance.json", "recipe.yaml")
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in records)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def check_same(place: Path, one: str, other: str) -> None:
    expected, found = contents(place / one), contents(place / other)
    assert {"manifest.json", "train-00000.ds", "validation-00000.ds.index", "README.md"} <= expected.keys()
    assert [name for name in expected | found if expected.get(name) != found.get(name)] == []


@needs_datatrove
@pytest.mark.parametrize("kind", ["mixture", "position"])
def test_local_tasks_write_the_same_bytes(place, kind, capsys):
    data = mixture(place)
    if kind == "position":
        data = {"sources": {"a": {"path": str(place / "a"), "max_broken": 0.5}}, "split_by": "position"}
    prepare.main(recipe(place, "plain", data, workers=1))
    engine = {"kind": "local", "tasks": 3, "workers": 2}
    prepare.main(recipe(place, "spread", data, engine=engine))
    printed = capsys.readouterr().out
    assert [line.split(":")[0] for line in printed.splitlines() if "tasks (local)" in line] == STAGES
    check_same(place, "plain", "spread")
    funnel = json.loads((place / "spread" / "manifest.json").read_text())["funnel"]
    expected = {"duplicate", "near duplicate", "contaminated", "same file twice", "broken record", "empty"}
    assert expected <= funnel["dropped"].keys() and funnel["trimmed"]["repeated lines"]
    # An engine does not change the output, which is therefore up to date without one.
    prepare.main(recipe(place, "spread", data))
    assert "up to date" in capsys.readouterr().out


# Tasks import it anew. With a victim, the one that has done some of its share kills it, or itself.
PROGRAM = """
import os, signal, sys, time
from training.corpus.curation import blocks; from training.corpus.output import encoding
from training.corpus.sources import partitions
blocks.BLOCK_DOCUMENTS = 20
partitions.PARTITION_BYTES = 20_000

def deadly(owner, name, after, victim):
    method, calls = getattr(owner, name), []
    def call(*arguments, **options):
        calls.append(name)
        if len(calls) > after:
            os.kill(victim, signal.SIGKILL)
            time.sleep(60)  # until it ends with the command
        return method(*arguments, **options)
    setattr(owner, name, call)

if __name__ == "__mp_main__":
    if sys.argv[1] == "command":
        deadly(blocks.BlockStore, "write", 4, os.getppid())
    if sys.argv[1] == "task":
        deadly(encoding.Encoder, "write", 2, os.getpid())

if __name__ == "__main__":
    from training.cli import main
    sys.exit(main(["prepare", *sys.argv[2:]]))
"""


@needs_datatrove
def test_killed_tasks_are_gone_on_with(place, monkeypatch):
    """The command is killed while tasks are at the blocks, then a task is while they are at the tokens."""
    (place / "program.py").write_text(PROGRAM)
    work = place / "killed.partial" / "work"
    data = {"sources": {"a": {"path": str(place / "a"), "max_broken": 0.5}}}

    def run(name: str, victim: str = "nobody", **options: object) -> subprocess.CompletedProcess:
        flags = recipe(place, name, data, **options)
        command = [sys.executable, place / "program.py", victim, *flags]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    spread = {"engine": {"kind": "local", "tasks": 2, "workers": 2}}
    assert run("killed", "command", **spread).returncode == -signal.SIGKILL
    done = {block: block.stat().st_mtime_ns for block in work.glob("blocks/a/*/*.npz")}
    assert 4 <= len(done) < 12 and not (work / "tokens").exists()
    killed = run("killed", "task", **spread)
    assert killed.returncode == 2
    assert "error: a worker process was killed" in killed.stderr and "--engine.workers 1" in killed.stderr
    assert {block: block.stat().st_mtime_ns for block in done} == done
    assert len(list(work.glob("tokens/a/*"))) > len(list(work.glob("tokens/a/*/complete.json"))) >= 1
    again = run("killed", **spread)
    assert again.returncode == 0 and "tokenizing" in again.stdout and "filtering" not in again.stdout, again.stderr
    monkeypatch.setattr(blocks, "BLOCK_DOCUMENTS", 20)
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 20_000)
    prepare.main(recipe(place, "plain", data, workers=1))
    check_same(place, "plain", "killed")


STAND_INS = {
    "sbatch": """
        [ -e "$SPOOL/refuse" ] && echo "sbatch: error: Invalid partition name" >&2 && exit 1
        job=$((100 + $(ls "$SPOOL" | grep -c script)))
        cp "${@: -1}" "$SPOOL/script-$job"
        last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$SPOOL/script-$job")
        export SLURM_JOB_ID=$job SLURM_NODELIST=here
        (
            for task in $(seq 0 $last); do SLURM_ARRAY_TASK_ID=$task bash "$SPOOL/script-$job"; done
            touch "$SPOOL/over-$job"
        ) > "$SPOOL/log-$job" 2>&1 &
        echo "Submitted batch job $job" """,
    "squeue": """
        [ -e "$SPOOL/over-$3" ] || { echo $3; exit 0; }
        echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1 """,
    "srun": """ [ "$*" = "-l -n 1 launch_pickled_pipeline ${@: -1}" ] && shift 3 && exec "$@" """,
    "scontrol": """ echo here """,
    "launch_pickled_pipeline": """ exec {python} -m datatrove.tools.launch_pickled_pipeline "$@" """,
}


@pytest.fixture
def slurm(place, monkeypatch):
    """Stand-ins for Slurm's commands; a folder of the scripts of jobs and what they wrote."""
    (place / "bin").mkdir()
    (place / "spool").mkdir()
    for name, body in STAND_INS.items():
        file = place / "bin" / name
        file.write_text("#!/bin/bash\n" + body.replace("{python}", sys.executable))
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SPOOL", str(place / "spool"))
    monkeypatch.chdir(place)  # as recipes do, this one names its text from here
    return place / "spool"


ENGINE = {"kind": "slurm", "tasks": 2, "partition": "long", "memory_gb": 8, "sbatch": {"account": "mine"}}


@needs_datatrove
def test_slurm_jobs_write_the_same_bytes(place, slurm, capsys):
    data = {"sources": {"a": {"path": "a", "weight": 2, "max_broken": 0.5}, "b": {"path": "b", "weight": 1}}}
    prepare.main(recipe(place, "plain", data, workers=1))
    prepare.main(recipe(place, "spread", data, engine=ENGINE))
    check_same(place, "plain", "spread")
    printed = capsys.readouterr().out
    for number, stage in enumerate(STAGES):
        assert f"{stage}: Slurm job {100 + number}; this command waits" in printed
    script = (slurm / "script-100").read_text()
    for option in ("partition=long", "time=24:00:00", "mem-per-cpu=8G", "account=mine", "array=0-1", "cpus-per-task=1"):
        assert f"#SBATCH --{option}\n" in script
    assert "qos" not in script and "job-name=scratch-filtering" in script
    assert len(list(slurm.glob("script-*"))) == len(STAGES)  # nothing but these


@needs_datatrove
def test_what_goes_wrong_on_slurm_is_one_line(place, slurm, monkeypatch):
    def rejects(match: str, **options: object) -> None:
        data = {"sources": {"a": {"path": "a", "max_broken": 0.5}, "b": {"path": "b"} | options}}
        with pytest.raises(UserError, match=match) as caught:
            prepare.main(recipe(place, "spread", data, engine=ENGINE))
        Stage.note_end("mistake", "")  # as the command line does
        assert "\n" not in str(caught.value) and not (place / "spread").exists()

    (slurm / "refuse").touch()
    rejects("sbatch rejected the job")
    (slurm / "refuse").unlink()
    rejects(r"'data.sources.b.text_column': b/.\.jsonl has no column 'txt'; did you mean 'text'", text_column="txt")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    rejects("outside of it")
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    monkeypatch.setattr(cluster, "LATE", 0)
    (place / "bin" / "srun").write_text("#!/bin/bash\nexit 1\n")
    rejects(
        r"filtering: \d+ of \d+ partitions are not complete; see the logs in "
        r".*spread.partial/work/tasks/filtering/\d+, then rerun the same"
    )
    (place / "bin" / "sbatch").unlink()
    rejects("sbatch and squeue are not on this machine")


@needs_datatrove
def test_a_job_that_is_still_at_it_is_waited_for(tmp_path, monkeypatch):
    """And not given a second time."""
    from training.corpus.execution import executors as engines

    spread = cluster.Cluster(EngineConfig(kind="slurm", partition="long"), tmp_path)
    done, calls = [], []
    monkeypatch.setattr(engines, "start", lambda *arguments: calls.append("start"))
    monkeypatch.setattr(engines, "submitted", lambda folder: f"job of {folder.name}")
    monkeypatch.setattr(engines, "wait", lambda job: done.extend("ab") or calls.append(job))
    cluster.write_assignments(tmp_path / "filtering" / "000", [["a", "b"]], list)
    spread.run("filtering", ["a", "b"], [1, 1], list, done.__contains__)
    assert calls == ["job of 000"] and len(list((tmp_path / "filtering").iterdir())) == 1


def test_shares_are_even_and_in_order():
    sizes = [5, 40, 1, 1, 30, 5, 8, 10]
    shares = assign(range(8), sizes, 3)
    assert sorted(sum(shares, [])) == list(range(8)) and all(share == sorted(share) for share in shares)
    assert max(sum(sizes[item] for item in share) for share in shares) == 40
    assert assign("ab", [1, 1], 16) == [["a"], ["b"]]


def test_without_datatrove_it_is_one_line(place, monkeypatch):
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"datatrove, which is not installed; pip install -e .*cluster"):
        prepare.main(recipe(place, "spread", mixture(place), engine={"kind": "local"}))
    assert not (place / "spread").exists()


def test_what_an_engine_cannot_be_is_one_line(place):
    for engine, message in (
        ({"kind": "spark"}, "'engine.kind' must be one of local, slurm, ray"),
        ({"kind": "slurm"}, "'engine.partition' is missing; name the Slurm partition"),
        ({"tasks": 4}, "'engine.tasks' has no effect without 'engine.kind': local or slurm or ray"),
        ({"kind": "local", "partition": "long"}, "'engine.partition' has no effect without 'engine.kind': slurm"),
        ({"kind": "local", "tasks": 0}, "'engine.tasks' must be at least 1, not 0"),
    ):
        with pytest.raises(UserError, match=message):
            prepare.main(recipe(place, "spread", mixture(place), engine=engine))
    with refused("workers", "engine"):
        prepare.main(recipe(place, "spread", mixture(place), engine={"kind": "local"}, workers=2))
