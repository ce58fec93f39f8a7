"""Checkpoints that count only when they are whole.

A checkpoint is a folder `step-00000500`: a plain Hugging Face directory, and below `state/` what else it takes to go on
(see `training.pretraining.state`). It is written beside, as `step-00000500.tmp`, and reaches the disk before it is renamed,
so that even a power cut leaves the one before. Its marker, `complete.json`, holds the SHA-256 of every file: what does
not agree with it is not gone on from.
"""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from training.common.errors import writing_to
from training.common.files import sha256, sync

MARKER = "complete.json"
Write = Callable[[Path], None]  # fills an empty folder with the files of a checkpoint


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint.

    Args:
        progress: what `Checkpoints.save` was given.
    """

    folder: Path
    progress: dict[str, Any] = field(hash=False)

    @property
    def step(self) -> int:
        return self.progress["step"]

    @property
    def validation_loss(self) -> float | None:
        return self.progress["validation_loss"]


class Checkpoints:
    """The checkpoints of a run. One process alone, the main one, may call this.

    As a context manager it sees to it that a checkpoint on its way is written before the run ends, however it ends.

    Args:
        folder: holds them.
        keep_last: how many of the newest to keep.
        keep_best: how many to keep beside these, of those with the lowest validation loss.
        asynchronous: write in a thread, while training goes on. One at a time: the next waits for the one before.
        logs: of the run, which must have reached the disk before a checkpoint counts that comes after their lines.
    """

    def __init__(self, folder: Path, keep_last: int, keep_best: int, asynchronous: bool, logs: list[Path]):
        self.folder, self.keep_last, self.keep_best = folder, keep_last, keep_best
        self.asynchronous, self.logs = asynchronous, logs
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def newest(self) -> Checkpoint | None:
        """The newest whole checkpoint. Removes what was being written when an earlier run died.

        A damaged one is passed over with a line that names it. It is set aside as `step-00000500.damaged`, until the
        run has come past it again.

        Raises:
            UserError: `folder` cannot be written.
        """
        with writing_to(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob("step-*.tmp"):  # first: a full disk may need the room
                shutil.rmtree(leftover)
            self.half(0).mkdir()  # only to see whether it can be written
            self.half(0).rmdir()
        passed_over = False
        for folder in sorted(self.folder.glob("step-*[0-9]"), reverse=True):
            damage = _damage(folder)
            if damage is None:
                return _read(folder)
            print(f"pretrain: warning: {folder} is damaged ({damage}), passed over")
            aside = folder.with_name(folder.name + ".damaged")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            passed_over = True
        if passed_over:
            print("pretrain: no checkpoint is left, starting from step 0")
        return None

    def save(self, progress: dict[str, Any], capture: Callable[[], Write]) -> None:
        """Write a checkpoint and drop those that are not to be kept.

        Args:
            progress: how far the run is, as JSON: at least `step`, the optimizer steps done, and `validation_loss`,
                the finite one measured at this very step, or None.
            capture: called at once, in the calling thread. What it returns may run in another thread, while training
                changes the weights.
        """
        self.wait()
        write = capture()
        if self.asynchronous:
            self._thread = threading.Thread(target=self._try, args=(progress, write), name="checkpoint")
            self._thread.start()
        else:
            self._save(progress, write)

    def check(self) -> None:
        """Raise what went wrong in the thread, if something did."""
        if self._error:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Until the last checkpoint is whole. Raises what went wrong with it."""
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

    def half(self, step: int) -> Path:
        """Where the checkpoint of a step is written."""
        return _trash(self.folder / f"step-{step:08d}")

    def begin(self, step: int) -> Path:
        """An empty folder to write the checkpoint of a step into."""
        temporary = self.half(step)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        return temporary

    def commit(self, progress: dict[str, Any]) -> None:
        """Make the folder from `begin` count, now that it is filled, and drop those that are not to be kept."""
        temporary = self.half(progress["step"])
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        content = {
            "progress": progress,
            "files": {path.relative_to(temporary).as_posix(): sha256(path) for path in files},
        }
        (temporary / MARKER).write_text(json.dumps(content | {"sha256": _seal(content)}, indent=2) + "\n")
        for path in (*self.logs, *temporary.rglob("*"), temporary):
            sync(path)
        temporary.rename(temporary.with_suffix(""))
        sync(self.folder)
        self._drop(progress["step"])

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
            shutil.rmtree(temporary, ignore_errors=True)  # a full disk has room again
            raise

    def _drop(self, step: int) -> None:
        """All but the last, the best and those that cannot be read; and what the run has come past."""
        whole = [checkpoint for folder in sorted(self.folder.glob("step-*[0-9]")) if (checkpoint := _read(folder))]
        validated = [checkpoint for checkpoint in whole if checkpoint.validation_loss is not None]
        validated.sort(key=lambda checkpoint: (checkpoint.validation_loss, -checkpoint.step))
        kept = {*whole[-self.keep_last :], *validated[: self.keep_best]}
        for checkpoint in whole:
            if checkpoint not in kept:  # it is whole until the very moment when its name is gone
                shutil.rmtree(checkpoint.folder.rename(_trash(checkpoint.folder)))
        for aside in self.folder.glob("step-*.damaged"):
            if aside.stem <= f"step-{step:08d}":
                shutil.rmtree(aside)


def _trash(folder: Path) -> Path:
    """What `newest` removes: a checkpoint that is being written or dropped."""
    return folder.with_name(folder.name + ".tmp")


def _read(folder: Path) -> Checkpoint | None:
    """What the marker says, or None if it cannot be read."""
    try:
        return Checkpoint(folder, json.loads((folder / MARKER).read_text())["progress"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        content = json.loads((folder / MARKER).read_text())
        seal = content.pop("sha256")
        if seal != _seal(content):
            return f"{MARKER} has changed"
        for name, expected in content["files"].items():
            if sha256(folder / name) != expected:
                return f"{name} has changed"
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(folder)} is missing"
    except (ValueError, KeyError, AttributeError, TypeError):
        return f"{MARKER} cannot be read"
    except PermissionError:
        raise
    except OSError as error:
        return f"{error.strerror}: {error.filename}"
    return None


def _seal(content: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
