"""Every stage, killed, on a full disk and on a disk that becomes read-only, at random moments of its whole run.

The output then still holds the last good run, or the new one, whole. The error is one line. The next run goes on, and
ends with the output of a run that nothing has disturbed. One round of some stages is part of the tests. A study of nine
has 27 kills and 18 failing disks a stage, those of `scratch run`, and disks of many sizes. It prints a line for each:

    FAULT_ROUNDS=9 python -m pytest tests/end_to_end/test_faults.py -s -m "release or not release"
"""

import json
import os
import pkgutil
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from faults import IN_PLACE, Fault, Outcome, run_scratch
from fork_server import fork_server
from tiny_stages import LINES, MODEL, TRAINING, flags, write_data, write_model, write_tokenizer
from transformers import AutoModelForCausalLM

import training
from modeling_scratch.conversion_scratch import to_stock
from training.common.files import find_damage
from training.stages.lock import LOCK
from training.stages.provenance import read_provenance, staging_dir
from training.stages.stage import OWNED, Stage

ROUNDS = int(os.environ.get("FAULT_ROUNDS", 1))
SEED = int(os.environ.get("FAULT_SEED", random.SystemRandom().randrange(10**6)))

TUNING = TRAINING | {
    "model_name_or_path": "pretrain",
    "max_steps": 6,
    "save_strategy": "steps",
    "save_steps": 2,
    "logging_steps": 1,
    "gradient_checkpointing": "false",
    "seed": 3,
}
PREFERENCES = "data/preferences/train.jsonl"
SAMPLING = {"num_generations": 2, "max_completion_length": 4, "reward_funcs": "[number]"}


def tuning(stage: str, file: str, **options: object) -> list[str]:
    data = json.dumps([{"path": "json", "data_files": {"train": file}}])
    return [stage, *flags(TUNING | {"datasets": data} | options)]


STAGES = {
    "tokenizer": ["tokenizer", *flags({"data.path": "text.jsonl", "vocab_size": 280})],
    "prepare": [
        "prepare",
        *flags({"data.path": "text.jsonl", "tokenizer": "tokenizer", "data.dedup.near": "true", "workers": 1}),
    ],
    "pretrain": [
        "pretrain",
        *flags({"data": "data", "tokenizer": "tokenizer", "bf16": "false", "max_steps": 6, "save_steps": 2}),
        *flags({"sequence_length": 16, "global_batch_size": 4, "per_device_train_batch_size": 2, "logging_steps": 1}),
        *flags({"eval_steps": 3, "eval_sequences": 2, **{f"model.{key}": value for key, value in MODEL.items()}}),
    ],
    "sft": tuning("sft", "data/instructions/train.jsonl", assistant_only_loss="true"),
    "reward": tuning("reward", PREFERENCES),
    "dpo": tuning("dpo", PREFERENCES),
    "kto": tuning("kto", "labelled.jsonl"),
    "orpo": tuning("orpo", PREFERENCES),
    "grpo": tuning("grpo", "sums.jsonl", **SAMPLING),
    "rloo": tuning("rloo", "sums.jsonl", **SAMPLING),
    "classify": [
        "classify",
        *flags({"model": "pretrain", "num_train_epochs": 2, "per_device_train_batch_size": 8}),
        *flags({f"data.{split}": "sorted.jsonl" for split in ("train", "validation", "test")}),
    ],
    "evaluate": [
        "evaluate",
        *flags({"models": "{one: pretrain, two: other}", "data": "data", "texts": "{mine: text.jsonl}"}),
    ],
    "export": ["export", *flags({"model": "pretrain", "to": "llama"})],
    "import": ["import", *flags({"model": "llama"})],
}
# Before each release, all of them. Otherwise one of TRL's trainers stands for all: they share what writes and resumes.
SHORT = ("tokenizer", "prepare", "pretrain", "sft", "evaluate", "export")


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        own = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", OWNED: "1"}
        for name, value in (own | {"HF_HOME": str(tmp_path_factory.mktemp("home"))}).items():
            patch.setenv(name, value)
        every = [module.name for module in pkgutil.walk_packages(training.__path__, "training.")]
        with fork_server("forking", "matplotlib.pyplot", *(name for name in every if not name.endswith("__main__"))):
            place = tmp_path_factory.mktemp("server")
            run_scratch(["--version"], place, place / "log")  # starts it, so that its start is in no measured time
            yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """What the stages read."""
    place = tmp_path_factory.mktemp("inputs")
    write_data(place / "data", write_tokenizer(place / "tokenizer"))
    write_model(place / "pretrain", place / "tokenizer", preset="llama")
    write_model(place / "other", place / "tokenizer")
    write_records(place / "text.jsonl", [{"text": " ".join(LINES[place : place + 20])} for place in range(60)])
    question, answers = [{"role": "user", "content": "Where is it?"}], [[{"role": "assistant", "content": "Here."}]]
    write_records(
        place / "labelled.jsonl",
        [{"prompt": question, "completion": answers[0], "label": bool(number % 2)} for number in range(8)],
    )
    write_records(place / "sums.jsonl", [{"prompt": question, "answer": number} for number in range(8)])
    write_records(place / "sorted.jsonl", [{"text": LINES[n], "label": "even" if n % 2 else "odd"} for n in range(40)])
    llama = to_stock(AutoModelForCausalLM.from_pretrained(place / "pretrain"), "llama")
    llama.save_pretrained(place / "llama")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(place / "pretrain" / file, place / "llama")
    return place


def write_records(file: Path, records: list[dict]) -> None:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


class Trial:
    """A stage that replaces a finished output, `out/new`, disturbed again and again.

    Args:
        arguments: of the stage, without its output.
    """

    def __init__(self, arguments: list[str], place: Path, disk: Path):
        self.stage, self.folder = arguments[0], disk
        self.output = disk / "new"
        self.log = place / "log"
        self.arguments = [*arguments, f"--output_dir={self.output}"]
        self.history: list[str] = [f"seed {SEED}"]
        self.undisturbed = self.begin_again().run()
        assert self.undisturbed.code == 0, self.undisturbed.said
        self.result, self.largest = content(self.output), largest_file(self.output)

    def begin_again(self) -> "Trial":
        """Put a finished output of another recipe in place of everything."""
        for path in self.folder.iterdir():
            shutil.rmtree(path)
        stage = Stage(self.stage, str(self.output), {}, {}, [])
        for name in ("model.safetensors", "old.txt"):
            (stage.begin() / name).write_text(f"{name}, the last good output")
        stage.finish({}, wrote="output")
        self.old = read_provenance(self.output)["fingerprint"]
        del self.history[1:]
        return self

    def run(self, fault: Fault | None = None, kill_after: float | None = None) -> Outcome:
        outcome = run_scratch(self.arguments, self.folder, self.log, fault, kill_after)
        after = f"{kill_after:.2f} s: " if kill_after is not None else ""
        self.history.append(f"{after}{fault or ''} -> {outcome.code}, last line: {outcome.said.strip()[-300:]!r}")
        return outcome

    def disturb(self, fault: Fault | None = None, kill_after: float | None = None) -> str:
        """Run with a fault, and check what it left; returns what happened, in a word."""
        outcome = self.run(fault, kill_after)
        report = "\n".join(self.history)
        assert "Traceback" not in outcome.said, f"{report}\n{outcome.said}"
        killed = outcome.code < 0
        if killed:
            assert outcome.code == -9, report
        elif outcome.code:
            errors = [line for line in outcome.said.splitlines() if line.startswith("error: ")]
            assert outcome.code in (1, 2) and len(errors) == 1, f"{report}\n{outcome.said}"
        record = read_provenance(self.output)
        if not self.output.exists():
            assert killed or outcome.code, report
            record = read_provenance(self.output.with_name("new.replaced"))
            assert record["fingerprint"] == self.old, report
            assert not find_damage(self.output.with_name("new.replaced"), record["files"]), report
        else:
            assert not find_damage(self.output, record["files"]), report
            if record["fingerprint"] != self.old or outcome.code == 0:
                # A kill may come between the rename that puts the output in place and the deletion of its lock.
                assert set(self.differences()) <= {LOCK}, f"{self.differences()}\n{report}"
        return "killed" if killed else "failed" if outcome.code else "finished"

    def differences(self) -> list[str]:
        """The files of the output that are not those of the undisturbed run."""
        found, absent = content(self.output), object()
        names = sorted(found.keys() | self.result.keys())
        return [name for name in names if found.get(name, absent) != self.result.get(name, absent)]

    def finish(self) -> None:
        """Run undisturbed: nothing is missing, nothing is left over, and no checkpoint was made in vain."""
        saved = checkpoints(staging_dir(self.output))
        outcome = self.run()
        report = "\n".join(self.history)
        assert outcome.code == 0, f"{report}\n{outcome.said}"
        assert not self.differences(), f"{self.differences()}\n{report}"
        assert os.listdir(self.folder) == ["new"], report
        if saved:
            assert "resum" in outcome.said or "in place" in outcome.said, f"{report}\n{outcome.said}"
        outcome = self.run()
        assert outcome.code == 0 and "up to date" in outcome.said, f"{report}\n{outcome.said}"


def checkpoints(folder: Path) -> list[Path]:
    """Those that are complete: the last file of each is there."""
    last = ("checkpoints/step-*[0-9]/complete.json", "trainer/checkpoint-*/trainer_state.json")
    return [file for pattern in last for file in folder.glob(pattern)]


def largest_file(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def content(folder: Path) -> dict[str, object]:
    """The files of an output, and of those that no time or machine enters, what they hold."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file():
            continue
        if path.name == "metrics.jsonl":
            found[name] = losses(path)
        elif path.suffix in (".safetensors", ".jsonl", ".ds", ".index") or path.name == "tokenizer.json":
            found[name] = path.read_bytes()
        else:
            found[name] = None
    return found


def losses(file: Path) -> list[dict[str, object]]:
    records = [json.loads(line) for line in file.read_text().splitlines()]
    names = ("step", "loss", "eval_loss", "validation_loss", "grad_norm", "reward")
    return [{name: record[name] for name in names if name in record} for record in records]


def note(stage: str, happened: Counter, undisturbed: Outcome) -> None:
    counts = ", ".join(f"{count} {what}" for what, count in sorted(happened.items()))
    print(f"\n{stage}: seed {SEED}, {undisturbed.changes} changes in {undisturbed.seconds:.1f} s; {counts}")


@pytest.mark.parametrize(
    "stage", [name if name in SHORT else pytest.param(name, marks=pytest.mark.release) for name in STAGES]
)
def test_a_stage_goes_on_after_any_fault(stage, inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(inputs)
    draw = random.Random(f"{SEED} {stage}")
    (tmp_path / "out").mkdir()
    trial = Trial(STAGES[stage], tmp_path, tmp_path / "out")
    happened: Counter[str] = Counter()
    for _ in range(ROUNDS):
        trial.begin_again()
        some = [draw.randint(1, trial.undisturbed.changes) for _ in range(4)]
        full = [Fault("full", some[0]), Fault("limit", int(trial.largest * draw.uniform(0.01, 0.9)))]
        faults = [Fault("kill", some[1]), Fault("read-only", some[2]), draw.choice(full), None]
        draw.shuffle(faults)
        for fault in (*faults, Fault("kill", IN_PLACE)):
            moment = None if fault else draw.uniform(0, trial.undisturbed.seconds)
            end = trial.disturb(fault, moment)
            happened[f"{end} by {fault.kind if fault else 'kill'}"] += 1
            if end == "finished":  # before the fault
                trial.begin_again()
        trial.finish()
    note(stage, happened, trial.undisturbed)


@pytest.mark.parametrize(
    "stage", [name if name == "sft" else pytest.param(name, marks=pytest.mark.release) for name in STAGES]
)
def test_a_stage_goes_on_with_more_room_on_its_disk(stage, inputs, tmp_path, small_disk, monkeypatch):
    """The kernel's own full disk; the size at which it runs full grows from run to run."""
    monkeypatch.chdir(inputs)

    def resize(kilobytes: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", small_disk], check=True)

    resize(100_000)
    trial = Trial(STAGES[stage], tmp_path, small_disk).begin_again()
    happened, size = Counter(), 60
    resize(size)
    while trial.disturb() == "failed":
        happened["failed"] += 1
        assert "space left on" in trial.history[-1].lower(), trial.history
        size = int(size * (4 if ROUNDS == 1 else 1.3))
        resize(size)
    assert happened["failed"], size
    trial.finish()
    note(f"{stage} on disks of 60 to {size} kB", happened, trial.undisturbed)


@pytest.mark.skipif(ROUNDS == 1, reason="test_quickstart.py kills a whole run once")
def test_a_whole_run_goes_on_after_any_kill(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(inputs)
    draw, disk, recipes = random.Random(f"{SEED} run"), tmp_path / "out", tmp_path / "recipes"
    disk.mkdir()
    recipes.mkdir()
    places = {"tokenizer": f"{disk}/tokenizer", "data": f"{disk}/prepare"}
    needs, command = {"tokenizer": (), "prepare": ("tokenizer",), "pretrain": ("tokenizer", "data")}, []
    for stage, keys in needs.items():
        recipe = {"output_dir": f"{disk}/{stage}"} | {key: places[key] for key in keys}
        (recipes / f"{stage}.yaml").write_text(json.dumps(recipe))
        own = (flag.removeprefix("--") for flag in STAGES[stage][1:])
        command += [f"--{stage}.{flag}" for flag in own if flag.partition("=")[0] not in keys]

    def run(fault: Fault | None = None, kill_after: float | None = None) -> Outcome:
        outcome = run_scratch(["run", str(recipes), *command], disk, tmp_path / "log", fault, kill_after)
        assert outcome.code in (0, -9) and "Traceback" not in outcome.said, outcome.said
        return outcome

    undisturbed = run()
    result, happened = content(disk), Counter()
    for _ in range(ROUNDS):
        end = "finished"
        for fault in (None, Fault("kill", draw.randint(1, undisturbed.changes)), None):
            if end == "finished":  # begin again
                for path in disk.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            moment = None if fault else draw.uniform(0, undisturbed.seconds)
            end = "killed" if run(fault, moment).code else "finished"
            happened[end] += 1
        assert run().code == 0 and content(disk) == result, (SEED, happened)
    note("run", happened, undisturbed)

