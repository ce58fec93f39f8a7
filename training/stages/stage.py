"""Stages: folders in, one folder out, written completely or not at all, with a record of how it was made.

A stage works in `<output_dir>.partial`, which is renamed to `output_dir` when it is complete. A failed or interrupted
stage therefore leaves the last good output untouched, and finds its own unfinished work when it runs again. Work of
another recipe or other inputs, finished or not, is discarded only with `--restart`, and so is an output that somebody
has edited. `scratch run` may also replace what is finished and not edited. The output holds two records: `recipe.yaml`,
the resolved recipe, which `--config` takes; and `provenance.json` with that recipe, a hash of every input, the files
written, package versions, metrics and the command that repeats the stage.

A stage may be killed at any moment. Its work counts as complete once its record says so; the next run then only puts
it in place. What is discarded is first renamed to `<output_dir>.replaced`, so that it is never half there under a name
that counts, and deleted with its record last, so that the rest is known to be ours.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, Literal

from training.common.errors import UserError, writing_to
from training.common.files import find_damage, follow_umask, list_files, move, write_whole
from training.common.metrics import LOGS
from training.common.processes import rank
from training.common.shipped import with_shipped
from training.stages.flags import flatten, recipe_file, split_restart
from training.stages.help import command_line, commented_yaml, plain_yaml
from training.stages.lock import LOCK, release_on_windows, take_lock
from training.stages.provenance import (
    PROVENANCE,
    RECIPE,
    REPLACED,
    as_json,
    beside,
    digest,
    essential_recipe,
    is_whole,
    mapping_of,
    names_folder,
    read_provenance,
    real_dir,
    staging_dir,
    versions,
    written_by,
)
from training.stages.recipe import STAGES
from training.stages.yaml_values import read_yaml

TEMPORARY = ("work", "trainer")  # folders that only an unfinished stage needs, with what it resumes from
OWNED = "SCRATCH_RUN"  # set in the environment of a stage by `scratch run`, which owns the outputs of its recipes


class Stage:
    """One run of one stage. The constructor writes nothing; `begin` and `finish` do.

    Args:
        name: the command, such as `pretrain`.
        output_dir: folder for the output, or a link to it.
        recipe: the resolved configuration (a dataclass or a mapping).
        inputs: name to digest (see `digest`) of everything the stage reads.
        arguments: the command line after the name, for the command in the provenance, and for `--restart`.
        runtime_keys: keys of the recipe that are recorded but do not change the output, such as `logging_steps`.
        keeps: what this run keeps of a finished output of another recipe, in words. It may then be replaced.
        obstacle: why it keeps nothing, where one might expect it, in words.

    Raises:
        UserError: `output_dir` holds something else, or cannot be replaced.
    """

    begun: "Stage | None" = None  # the one at work in this process
    saved = False

    def __init__(
        self,
        name: str,
        output_dir: str,
        recipe: Any,
        inputs: dict[str, str],
        arguments: list[str],
        runtime_keys: Set[str] = frozenset(),
        keeps: str = "",
        obstacle: str = "",
    ):
        Stage.begun = None
        self.name = name
        self.output_dir = Path(output_dir)
        if self.output_dir.name in ("", ".."):
            raise UserError(f"'output_dir': {name} needs a separate folder, such as runs/mine, not '{output_dir}'")
        self.target = real_dir(output_dir)
        if self.target.is_mount():
            raise UserError(
                f"'output_dir': {self.target} is the root of a disk, which cannot be renamed; choose a folder on it, "
                f"such as {self.output_dir / name}"
            )
        self.folder, self.replaced = staging_dir(output_dir), beside(self.target, REPLACED)
        self.recipe = mapping_of(recipe)
        self.config_class = type(recipe) if dataclasses.is_dataclass(recipe) else None
        self.inputs = inputs
        self.restart, self.arguments = split_restart(arguments)
        self.seconds_before = 0.0
        self.runtime_keys = runtime_keys
        self.keeps, self.obstacle = keeps, f" (it cannot be continued: {obstacle})" if obstacle else ""
        identity = as_json([name, essential_recipe(recipe, runtime_keys), inputs])
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()
        for folder in (self.target, self.folder, self.replaced):
            found = written_by(folder)
            if found and found != name:
                raise UserError(f"'output_dir': {folder} holds the output of '{found}'; choose another for {name}")
            leftovers = set() if folder == self.target else _record_files(folder)
            if folder.exists() and not found and (not folder.is_dir() or set(folder.iterdir()) - leftovers):
                raise UserError(f"'output_dir': {folder} was not written by scratch; move it or choose another folder")
        if not is_whole(self.folder):  # otherwise another process may be between the two renames of `_move`
            self._restore()

    def _restore(self) -> None:
        """Put the last output back if a run was killed between two renames."""
        if is_whole(self.replaced) and not self.target.exists():
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                move(self.replaced, self.target)

    def is_current(self) -> bool:
        """Whether the output exists already, whole, from the same recipe and inputs. Prints a line if it does.

        Puts in place an output that was complete when its run was killed.

        Raises:
            UserError: see `check_other_work`; or another process is putting the output in place.
        """
        if self._is_ours(self.folder):  # asked first: between the two questions, another process may put it in place
            if rank() == 0:
                self._put_in_place()
            print(f"{self.name}: {self.output_dir} was complete when the last run was killed; it is now in place")
            return True
        if self._is_ours(self.target):
            if rank() == 0:
                with contextlib.suppress(OSError):  # left by a run that was killed; it is in nobody's way
                    _delete(self.target / LOCK)
                    _delete(self.replaced)
            print(f"{self.name}: {self.output_dir} is up to date, skipped")
            return True
        self.check_other_work()
        return False

    def _is_ours(self, folder: Path) -> bool:
        """Whether a folder holds the whole output of this recipe and these inputs."""
        return read_provenance(folder).get("fingerprint") == self.fingerprint and is_whole(folder)

    def _put_in_place(self) -> None:
        """Do what is left of `finish` for a run that was killed there."""
        with writing_to(self.folder):
            try:
                self._lock()
            except FileNotFoundError:  # another process was faster
                return
            if self._is_ours(self.folder):  # otherwise another process put it in place before it released the lock
                self._move()
            self.lock.close()

    def check_other_work(self) -> None:
        """Reject work that may only be discarded if the user says so: of another recipe or other inputs, or edited.

        An unfinished run of this recipe continues: what it will replace was allowed when it began.

        Raises:
            UserError: lists the keys and inputs that differ, or the files that have changed.
        """
        if self.restart or self.resumes():
            return
        half, done = read_provenance(self.folder), read_provenance(self.target)
        if self._differences(half) and is_whole(self.folder):
            raise UserError(
                f"'output_dir': {self.folder} holds a finished run of another recipe ({self._differences(half)}); run "
                "the same command as before to put it in place, or discard that run with --restart"
            )
        if half and not half.get("failed") and _holds_work(self.folder):
            raise UserError(
                f"'output_dir': {self.folder} holds an interrupted run of another recipe ({self._differences(half)}); "
                "choose another output_dir, or discard that run with --restart"
            )
        differences = self._differences(done)
        if differences and not self.keeps and OWNED not in os.environ:
            raise UserError(
                f"'output_dir': {self.output_dir} holds a finished run of another recipe ({differences}); choose "
                f"another output_dir, or replace that run with --restart{self.obstacle}"
            )
        edited = ", ".join(find_damage(self.target, done.get("files", {})).changed)
        if edited:
            raise UserError(
                f"'output_dir': {self.output_dir} has changed since it was written ({_shorten(edited)}); copy your "
                "edits, then delete these files or use --restart to make it again"
            )

    def resumes(self) -> bool:
        """Whether there is unfinished work of this recipe and these inputs, which `begin` keeps."""
        half = read_provenance(self.folder)
        return bool(half) and not self.restart and not self._differences(half)

    def _differences(self, record: dict[str, Any]) -> str:
        """The keys and inputs that differ from those of a record, in words; empty for none, and without a record."""
        if not record or record["fingerprint"] == self.fingerprint:
            return ""
        before, now = flatten(record["recipe"]), flatten(json.loads(as_json(self.recipe)))
        changed = [
            f"{key}: {_shorten(before.get(key, 'not set'))} -> {_shorten(now.get(key, 'not set'))}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key) and key.split(".")[0] not in self.runtime_keys | {"output_dir"}
        ]
        inputs = [name for name, digest in self.inputs.items() if record["inputs"].get(name) != digest]
        if inputs:
            changed.append(f"inputs changed: {', '.join(inputs)}")
        return ", ".join(changed) or "written by another version of scratch"

    def begin(self, replace: bool = False) -> Path:
        """Create the folder to work in, keeping the unfinished work of a run with the same recipe and inputs.

        Prints what it discards, and which finished output this run will replace.

        Args:
            replace: a finished output of another recipe, whatever the user said: it is made in seconds.

        Returns:
            The folder: `staging_dir(output_dir)`.

        Raises:
            UserError: the folder cannot be written, another process works there, or see `check_other_work`.
        """
        if not replace:
            self.check_other_work()
        with writing_to(self.folder):
            self._open_folder()
            record = read_provenance(self.folder)
            if record and not self.resumes():
                if _holds_work(self.folder):
                    why = "restart requested" if self.restart else "the last run failed with another recipe"
                    print(f"{self.name}: {why}, starting over")
                self._restore()
                _delete(self.replaced)
                self._rename_folder(self.replaced)
                self._open_folder()
                record = {}
            _delete(self.replaced)
            # What an earlier process left stays protected, whatever mistake this one finds.
            self.saved = bool(record) and not record.get("failed") and _holds_work(self.folder)
            if not record:
                self._announce()
            self.seconds_before = record.get("seconds", 0.0)
            self.started = time.monotonic()
            Stage.begun = self
            write_whole(self.folder / RECIPE, self._recipe_yaml())
            self._write({})
        return self.folder

    def _announce(self) -> None:
        """Print why a finished output is made again."""
        record = read_provenance(self.target)
        differences = self._differences(record)
        if differences and self.keeps and not self.restart:
            print(f"{self.name}: continues {self.output_dir} ({differences}) and keeps {self.keeps}")
        elif differences:
            print(f"{self.name}: replaces {self.output_dir}, a run of another recipe ({differences}){self.obstacle}")
        elif damage := find_damage(self.target, record.get("files", {})):
            print(f"{self.name}: makes {self.output_dir} again ({damage})")

    def _open_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock()

    def _lock(self) -> None:
        """Keep a second process out of the folder, such as a worker that outlived its launcher, until this one ends."""
        try:
            self.lock = take_lock(self.folder)
        except BlockingIOError:
            raise UserError(
                f"'output_dir': another process is writing {self.output_dir}; wait for it, stop it, or choose "
                "another folder"
            ) from None

    def _rename_folder(self, target: Path) -> None:
        """Rename the working folder, whose lock goes with it where the system allows that."""
        release_on_windows(self.lock)
        move(self.folder, target)

    def describe_stop(self, step: int) -> str:
        """A line for a run that a signal stopped, with `step` training steps saved."""
        again = "the same command without --restart" if self.restart else "the same command"
        return f"stopped after step {step}, saved; rerun {again} to resume"

    def heartbeat(self) -> None:
        """Record the time spent so far, so that a resumed stage reports all of it. Called when something is saved."""
        self.saved = True
        self._write({})

    @staticmethod
    def note_end(kind: Literal["mistake", "failure", "stopped"], reason: str) -> None:
        """Record why the stage of this process ends unfinished, if it has begun, for those who look at the run.

        Work that a mistake of the user ended needs no later run, unless something had been saved: otherwise it would
        have to be discarded by hand once the recipe is corrected.
        """
        stage = Stage.begun
        if stage:
            worthless = {"failed": True} if kind == "mistake" and not stage.saved else {}
            with contextlib.suppress(OSError):
                stage._write({}, ended={"kind": kind, "reason": reason}, **worthless)

    def finish(
        self, metrics: dict[str, Any], wrote: str, unlisted: Set[str] = frozenset(), uses: Sequence[str] = ()
    ) -> None:
        """Complete the output: write its provenance, delete what only an unfinished stage needs (`TEMPORARY`), move it
        into place, and print the next command.

        Args:
            metrics: the figures of this stage, as JSON.
            wrote: content of the folder in a few words, for the terminal.
            unlisted: folders in the output that no later stage reads, so that their owner may delete them.
            uses: commands for the output, printed after that of the next recipe, see `command_line`.
        """
        follow_umask(self.folder)
        files = list_files(self.folder, {PROVENANCE, RECIPE, LOCK, *TEMPORARY, *unlisted})
        Stage.begun = None  # its record must not be replaced any more
        self._write(metrics, complete=True, files=files)  # if this process dies from here on, see `is_current`
        self._move()
        self.lock.close()
        print(f"{self.name}: wrote {self.output_dir} ({wrote})")
        following = [*filter(None, [self._next_command()]), *uses]
        if following:
            print(f"next: {', or '.join(following)}")

    def _move(self) -> None:
        """Replace the output by the complete one in the working folder."""
        for name in TEMPORARY:
            _delete(self.folder / name)
        if self.target.exists():
            _delete(self.replaced)
            move(self.target, self.replaced)
        self._rename_folder(self.target)
        with contextlib.suppress(OSError):  # the output is in place; the next run deletes what is left
            _delete(self.target / LOCK)
            _delete(self.replaced)

    def _next_command(self) -> str | None:
        """The command of the next recipe beside this one that names our output; a recipe of another run does not."""
        recipe = recipe_file(self.arguments) if self.name in STAGES else None
        if not recipe:
            return None
        for name in STAGES[STAGES.index(self.name) + 1 :]:
            candidate = Path(recipe).with_name(f"{name}.yaml")
            with contextlib.suppress(UserError):  # not a recipe
                if with_shipped(candidate).is_file() and names_folder(read_yaml(candidate), self.output_dir):
                    return command_line(name, "--config", candidate)
        return None

    def _recipe_yaml(self) -> str:
        header = f"# Resolved recipe of {self.output_dir}. Use it with: scratch {self.name} --config FILE\n\n"
        cls = self.config_class
        return header + (commented_yaml(cls, self.recipe) if cls else plain_yaml(self.recipe))

    def _write(self, metrics: dict[str, Any], **more: Any) -> None:
        record = {
            "stage": self.name,
            "fingerprint": self.fingerprint,
            "recipe": self.recipe,
            "inputs": self.inputs,
            "versions": versions(),
            "seconds": round(self.seconds_before + time.monotonic() - self.started, 1),
            "metrics": metrics,
            "complete": False,
            "files": {},
            **more,
            "command": command_line(self.name, *self.arguments),
        }
        if (self.folder / "tokenizer.json").is_file():  # to notice later if it was replaced
            record["tokenizer_sha256"] = digest(self.folder / "tokenizer.json")
        write_whole(self.folder / PROVENANCE, json.dumps(record, indent=2, default=str) + "\n")


def _delete(path: Path) -> None:
    """Delete a file or folder if it exists; the record of a folder goes last, for it tells whose the rest is."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for part in set(path.iterdir()) - {path / PROVENANCE}:
        shutil.rmtree(part) if part.is_dir() and not part.is_symlink() else part.unlink()
    shutil.rmtree(path)


def _record_files(folder: Path) -> set[Path]:
    """The files that a stage killed before its first record may leave."""
    return {folder / name for name in (LOCK, RECIPE, RECIPE + ".tmp", PROVENANCE + ".tmp")}


def _holds_work(folder: Path) -> bool:
    """Whether an unfinished stage has written more than its records and logs."""
    records = _record_files(folder) | {folder / name for name in (PROVENANCE, *LOGS)}
    others = (path for path in folder.rglob("*") if path not in records)
    return any(path.is_file() and path.stat().st_size for path in others)


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
