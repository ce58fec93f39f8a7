"""The runs that a command line names: a stage, the folder of a `scratch run`, or a folder of such folders."""

import os.path
from pathlib import Path

from training.common.errors import UserError
from training.stages.lock import find_holder
from training.stages.provenance import PARTIAL, PROVENANCE, REPLACED, staging_dir
from training.stages.recipe import STAGES
from training.watching.run import Run, State

_DEPTH = 2  # folders below the one that is named: runs/NAME/STAGE


class Watch:
    """The runs to show. `refresh` reads their files; nothing else is shared with them.

    Args:
        paths: as the user names them.

    Attributes:
        runs: those to show now, by name.
    """

    def __init__(self, paths: list[str]):
        self._paths = [_named(path) for path in paths]
        self._known: dict[Path, Run] = {}
        self._read: set[Path] = set()  # since the last `refresh` began
        self.runs: dict[str, Run] = {}

    @classmethod
    def open(cls, paths: list[str]) -> "Watch":
        """The runs as they are now. Raises UserError: nothing that trains is there."""
        watch = cls(paths)
        for path in watch._paths:
            watch._check(path)
        watch._find()
        return watch

    def refresh(self) -> None:
        """Find the runs again, and read what is new in their files."""
        self._read = set()
        self._find()

    def _find(self) -> None:
        targets = [target for path in self._paths for target in self._shown(path)]
        self.runs = {str(target): self._run(target) for target in dict.fromkeys(targets)}

    @property
    def over(self) -> bool:
        """Whether all runs have ended."""
        return all(run.state.over for run in self.runs.values()) and not any(map(_is_worked_in, self._paths))

    @property
    def succeeded(self) -> bool:
        """Whether all runs are finished. False if none is left: no stage had begun, or its folder was deleted."""
        return bool(self.runs) and all(run.state is State.FINISHED for run in self.runs.values())

    def _check(self, path: Path) -> None:
        target = _target(path)
        if target:
            run = self._run(target)
            if not run.trains:
                raise UserError(
                    f"'runs': {path} holds the output of '{run.stage}', which trains nothing; give the folder of a "
                    "training run, or the folder above it"
                )
        elif not path.is_dir():
            found = "a file" if path.exists() else "no such folder"
            raise UserError(f"'runs': {path}: {found}; give the output_dir of a run that has begun")
        elif not self._shown(path) and not _is_worked_in(path):
            raise UserError(f"'runs': {path} holds no training run; start one, or give the output_dir of one")

    def _run(self, target: Path) -> Run:
        """The run of a target, read once in each `refresh`."""
        run = self._known.setdefault(target, Run(target))
        if target not in self._read:
            run.refresh()
            self._read.add(target)
        return run

    def _shown(self, path: Path) -> list[Path]:
        """The stages to show of a folder: those that run; without one, the training stages of the newest run.

        A stage that trains nothing is shown while it runs, and where it ended unfinished.
        """
        if target := _target(path):
            return [target]
        stages = _stages_below(path, _DEPTH)
        working = [target for target in stages if (staging_dir(target) / PROVENANCE).is_file()]
        if running := [target for target in working if not self._run(target).state.over]:
            return running
        newest = max(stages, key=_changed, default=None)
        group = [target for target in stages if newest and target.parent == newest.parent]
        group.sort(key=lambda target: (_order(self._run(target).stage), _changed(target)))
        training = [target for target in group if self._run(target).trains]
        if _is_worked_in(path):  # between two stages
            return sorted(training, key=_changed)[-1:]
        return [target for target in group if target in training or self._run(target).state.unfinished]


def _named(path: str) -> Path:
    """A path whose last part is a name, not a dot."""
    short = Path(os.path.normpath(path))
    return short if short.name not in ("", "..") else Path(os.path.abspath(path))


def _target(path: Path) -> Path | None:
    """The final place of the stage that a path names; None if no stage has begun there."""
    if not path.name:  # the root of all folders
        return None
    path = path.with_name(path.name.removesuffix(PARTIAL)) if path.name.endswith(PARTIAL) else path
    return path if any((folder / PROVENANCE).is_file() for folder in (path, staging_dir(path))) else None


def _stages_below(folder: Path, depth: int) -> list[Path]:
    """The final places of all stages in a folder and its folders, down to `depth`."""
    found: dict[Path, None] = {}
    for child in _folders_in(folder):
        if child.name.endswith(REPLACED):
            continue
        if target := _target(child):
            found[target] = None
        elif depth > 1:
            found |= dict.fromkeys(_stages_below(child, depth - 1))
    return list(found)


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if child.is_dir())
    except OSError:  # no permission, or deleted meanwhile
        return []


def _changed(target: Path) -> float:
    """When the record of a stage was written last."""
    times = [0.0]
    for folder in (target, staging_dir(target)):
        try:
            times.append((folder / PROVENANCE).stat().st_mtime)
        except OSError:
            pass
    return max(times)


def _order(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


def _is_worked_in(path: Path) -> bool:
    """Whether a `scratch run` works in a folder, or in one of its folders. A stage has its own lock."""
    holders = [find_holder(folder) for folder in (path, *_folders_in(path)) if not (folder / PROVENANCE).is_file()]
    return any(holder and holder.alive for holder in holders)
