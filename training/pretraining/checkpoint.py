"""Checkpoints of a pretraining run, which are used only if complete, and their use by a longer run.

A checkpoint is a folder `step-00000500`: a plain Hugging Face directory, with the rest of the training state below
`state/` (see `training.pretraining.state`). It is written as `step-00000500.tmp` and renamed once it has reached the
disk, so that even a power cut leaves the previous one. Its marker `complete.json` holds the SHA-256 of every file. A
checkpoint that does not match its marker is never resumed from.
"""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from training.common.errors import writing_to
from training.common.files import move, sha256, sync
from training.common.json_files import read_json
from training.common.metrics import LOGS
from training.insight.record import INSIGHT, copy_record
from training.optim.schedule import learning_rate_factor
from training.pretraining.config import RUNTIME_KEYS, PretrainConfig
from training.stages.checkpoints import (
    CHECKPOINTS,
    MARKER,
    PROGRESS,
    Checkpoint,
    read_checkpoint,
    read_checkpoints,
)
from training.stages.flags import flatten
from training.stages.provenance import essential_recipe, read_provenance

Write = Callable[[Path], None]  # writes the files of a checkpoint into an empty folder


class Checkpoints:
    """Writes, finds and deletes the checkpoints of a run. Only the main process may call it.

    As a context manager it finishes a checkpoint in progress before the run ends, however the run ends.

    Args:
        folder: the folder of all checkpoints.
        keep_last: number of newest checkpoints to keep.
        keep_best: number of checkpoints with the lowest validation loss to keep as well.
        reusable_steps: the first steps, which a longer run can reuse; their newest checkpoint is kept as well.
        asynchronous: write in a thread while training continues. One at a time: the next waits for the previous one.
        logs: the run's log files. Their lines up to a checkpoint must reach the disk before it counts.
    """

    def __init__(
        self, folder: Path, keep_last: int, keep_best: int, reusable_steps: int, asynchronous: bool, logs: list[Path]
    ):
        self.folder, self.keep_last, self.keep_best, self.reusable_steps = folder, keep_last, keep_best, reusable_steps
        self.asynchronous, self.logs = asynchronous, logs
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def newest(self) -> Checkpoint | None:
        """The newest complete checkpoint. Removes leftovers of an interrupted write.

        A damaged one is skipped with a warning. It is kept as `step-00000500.damaged` until the run has passed that
        step again.

        Raises:
            UserError: `folder` cannot be written.
        """
        with writing_to(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob("step-*.tmp"):  # first, because a full disk may need the space
                shutil.rmtree(leftover)
            self.staging_dir(0).mkdir()  # to check that the folder can be written
            self.staging_dir(0).rmdir()
        skipped = False
        for folder in sorted(self.folder.glob("step-*[0-9]"), reverse=True):
            damage = _damage(folder)
            if damage is None:
                return read_checkpoint(folder)
            print(f"pretrain: warning: {folder} is damaged ({damage}), skipped")
            aside = folder.with_name(folder.name + ".damaged")
            shutil.rmtree(aside, ignore_errors=True)
            move(folder, aside)
            skipped = True
        if skipped:
            print("pretrain: no complete checkpoint is left, starting from step 0")
        return None

    def save(self, progress: dict[str, Any], capture: Callable[[], Write]) -> None:
        """Write a checkpoint and delete those that need not be kept.

        Args:
            progress: the progress of the run, as JSON. At least `step`, the optimizer steps done, and
                `validation_loss`, the finite loss measured at this step, or None.
            capture: called right away, in the calling thread. The function it returns may run in another thread, while
                training changes the weights.
        """
        self.wait()
        write = capture()
        if self.asynchronous:
            self._thread = threading.Thread(target=self._try, args=(progress, write), name="checkpoint")
            self._thread.start()
        else:
            self._save(progress, write)

    def check(self) -> None:
        """Raise the error of the writing thread, if there was one."""
        if self._error:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait until the last checkpoint is complete. Raises the error of writing it, if there was one."""
        if self._thread:
            self._thread.join()
            self._thread = None
        self.check()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.wait()
        elif self._thread and not issubclass(kind, KeyboardInterrupt):
            self._thread.join()

    def staging_dir(self, step: int) -> Path:
        """The folder in which the checkpoint of a step is written."""
        return _staging_dir(self.folder / f"step-{step:08d}")

    def begin(self, step: int) -> Path:
        """Make an empty folder for the checkpoint of a step."""
        temporary = self.staging_dir(step)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        return temporary

    def commit(self, progress: dict[str, Any]) -> None:
        """Complete the checkpoint in the folder from `begin`, and delete those that need not be kept."""
        temporary = self.staging_dir(progress["step"])
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        content = {
            "progress": progress,
            "files": {path.relative_to(temporary).as_posix(): sha256(path) for path in files},
        }
        sealed = json.dumps(content | {"sha256": _seal(content)}, indent=2)
        (temporary / MARKER).write_text(sealed + "\n", encoding="utf-8")
        for path in (*self.logs, *temporary.rglob("*"), temporary):
            sync(path)
        move(temporary, temporary.with_suffix(""))
        sync(self.folder)
        self._delete_old(progress["step"])

    def _try(self, *args: object) -> None:
        try:
            self._save(*args)
        except BaseException as error:  # raised again in the training thread
            self._error = error

    def _save(self, progress: dict[str, Any], write: Write) -> None:
        temporary = self.begin(progress["step"])
        try:
            write(temporary)
            self.commit(progress)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)  # frees the space on a full disk
            raise

    def _delete_old(self, step: int) -> None:
        """Delete checkpoints that need not be kept, and damaged ones up to `step`."""
        whole = read_checkpoints(self.folder)
        validated = [checkpoint for checkpoint in whole if checkpoint.validation_loss is not None]
        validated.sort(key=lambda checkpoint: (checkpoint.validation_loss, -checkpoint.step))
        reusable = [checkpoint for checkpoint in whole if checkpoint.step <= self.reusable_steps]
        kept = {*whole[-self.keep_last :], *validated[: self.keep_best], *reusable[-1:]}
        for checkpoint in whole:
            if checkpoint not in kept:  # renamed first: under its name, a checkpoint counts as complete
                move(checkpoint.folder, _staging_dir(checkpoint.folder))
                shutil.rmtree(_staging_dir(checkpoint.folder))
        for aside in self.folder.glob("step-*.damaged"):
            if aside.stem <= f"step-{step:08d}":
                shutil.rmtree(aside)


def _staging_dir(folder: Path) -> Path:
    """The name of a checkpoint that is being written or deleted; `newest` removes such folders."""
    return folder.with_name(folder.name + ".tmp")


def _damage(folder: Path) -> str | None:
    """Short description of a checkpoint's damage, or None."""
    try:
        content = read_json(folder / MARKER, {"sha256": str, "files": {str: str}, "progress": PROGRESS})
        seal = content.pop("sha256")
        if seal != _seal(content):
            return f"{MARKER} has changed"
        for name, expected in content["files"].items():
            if sha256(folder / name) != expected:
                return f"{name} has changed"
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(folder)} is missing"
    except ValueError:
        return f"{MARKER} cannot be read"
    except PermissionError:
        raise
    except OSError as error:
        return f"{error.strerror}: {error.filename}"
    return None


def _seal(content: dict[str, object]) -> str:
    """The SHA-256 of a marker's own content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Continuation:
    """The part of a finished run that another one takes over: the checkpoints that both have in common.

    Up to the step where the learning rates of two runs begin to differ, the weights of both are the same, bit for bit,
    if both are compiled or neither is. With the schedule `wsd` that is where the shorter run begins to decay.

    Attributes:
        folder: the finished output.
        checkpoints: those in common, by step.
        obstacle: why there are none, although only steps are added; in words.
        captures: whether the other run goes on with captures of attention.
    """

    folder: Path
    checkpoints: tuple[Checkpoint, ...] = ()
    obstacle: str = ""
    captures: bool = False

    def describe(self) -> str:
        """The steps taken over, in words; empty for none."""
        return f"its first {self.checkpoints[-1].step} steps" if self.checkpoints else ""

    def newest(self, own: list[Checkpoint]) -> Checkpoint | None:
        """The checkpoint that the new run starts from: the newest of these and its own, or None."""
        return max([*self.checkpoints, *own], key=lambda checkpoint: checkpoint.step, default=None)

    def copy_to(self, folder: Path) -> float:
        """Put checkpoints and logs into the working folder of the new run, unless it has got further already.

        Returns:
            Seconds of training that were added.
        """
        target = folder / CHECKPOINTS
        reached = max((own.step for own in read_checkpoints(target)), default=-1)
        added = [checkpoint for checkpoint in self.checkpoints if checkpoint.step > reached]
        if not added:
            return 0.0
        for log in LOGS:
            if (self.folder / log).is_file():
                shutil.copyfile(self.folder / log, folder / log)
        if self.captures:
            copy_record(self.folder / INSIGHT, folder / INSIGHT)
        for checkpoint in added:
            name = checkpoint.folder.name
            temporary = target / f"{name}.tmp"  # which `Checkpoints.newest` removes
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(target / name, ignore_errors=True)
            shutil.copytree(checkpoint.folder, temporary, copy_function=_link)
            move(temporary, target / name)
        return added[-1].progress["seconds"]


def find_continuation(config: PretrainConfig, inputs: dict[str, str]) -> Continuation:
    """The part of the finished run in `output_dir` that another run with more steps, or the same one again, takes over.

    Args:
        inputs: digests of what the run reads.
    """
    folder = Path(config.output_dir)
    record = read_provenance(folder)
    if record.get("stage") != "pretrain" or record["inputs"] != inputs:
        return Continuation(folder)
    essential = partial(essential_recipe, runtime_keys=RUNTIME_KEYS)
    before = flatten(essential(record["recipe"]))
    now = flatten(json.loads(json.dumps(essential(config), default=str)))
    done = before.get("max_steps", 0)
    if done > config.max_steps or before | {"max_steps": config.max_steps} != now:
        return Continuation(folder)
    common = common_steps(config, done)
    checkpoints = tuple(kept for kept in read_checkpoints(folder / CHECKPOINTS) if kept.step <= common)
    obstacle = f"the two runs differ from step {common} on, and no checkpoint from before is kept"
    obstacle = "" if checkpoints or done == config.max_steps else obstacle
    return Continuation(folder, checkpoints, obstacle, config.insight.enabled)


def common_steps(config: PretrainConfig, done: int) -> int:
    """The first steps that are the same in a run and in one of `done` steps, which is at most as long."""
    schedule = config.optimizer

    def factor(step: int, max_steps: int) -> float:
        kind, warmup_steps = schedule.schedule, schedule.warmup_steps
        return learning_rate_factor(
            step, max_steps, kind, warmup_steps, schedule.decay_fraction, schedule.final_fraction
        )

    differing = (step for step in range(done) if factor(step, done) != factor(step, config.max_steps))
    common = next(differing, done)
    if config.curriculum and done < config.max_steps:  # its phases begin at fractions of the run
        common = min(common, replace(config, max_steps=done).mixture.starts[1])
    return common


def reusable_steps(config: PretrainConfig) -> int:
    """The first steps of a run that any longer one has in common with it."""
    return common_steps(replace(config, max_steps=2 * config.max_steps), config.max_steps)


def _link(source: str, target: str) -> None:
    """Share a file, which is never written again, between two checkpoints; copy it where the disk has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
