"""A training run as its files show it: how it stands, its figures, its newest samples and scores of heads."""

import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.metrics import INCIDENTS, METRICS, SAMPLES
from training.stages.lock import Holder, find_holder
from training.stages.provenance import PROVENANCE, read_provenance, staging_dir
from training.stages.recipe import STAGES
from training.tuning.keys.trl_options import CONFIGURATIONS, defaults_of
from training.watching.figures import Figures
from training.watching.growing import GrowingFile, number

TRAINING = tuple(stage for stage in STAGES if stage in ("pretrain", "classify") or stage in CONFIGURATIONS)
HEADS = Path("insight", "heads.jsonl")


class State(Enum):
    """The states of a run."""

    RUNNING = "running"
    ELSEWHERE = "on another machine"  # where it runs, or was killed
    FINISHED = "finished"
    STOPPED = "stopped"  # by a signal, saved
    FAILED = "failed"
    KILLED = "killed"

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self not in (State.RUNNING, State.ELSEWHERE)

    @property
    def unfinished(self) -> bool:
        """Whether the run has ended before its last step."""
        return self.over and self is not State.FINISHED


@dataclass(frozen=True)
class HeadScore:
    """A measure of one attention head at the newest captured step."""

    layer: int
    head: int
    value: float


class Run:
    """One stage, in its working folder or in its final place.

    Args:
        target: the final place, `output_dir`.

    Attributes:
        stage: name of the command; empty until it is known.
        state, reason: how the run stands, and in words why it ended unfinished.
        holder: the process at work, if there is one.
        samples: texts that the model wrote last, at `samples_step`.
        heads: rows of heads.jsonl of the newest step, `heads_step`.
        incidents: their number; `incident` is the newest.
        new: records of training that the last `refresh` has found.
    """

    def __init__(self, target: Path):
        self.target = target
        self.stage, self.state, self.reason = "", State.RUNNING, ""
        self.holder: Holder | None = None
        self.record: dict[str, Any] = {}
        self._record_version: tuple[int, ...] = ()
        self._metrics, self._samples, self._heads, self._incidents = (GrowingFile() for _ in range(4))
        self.figures, self.new = Figures(), []
        self.samples: list[str] = []
        self.samples_step = 0
        self.heads: list[dict[str, Any]] = []
        self.heads_step = -1
        self.incidents, self.incident = 0, ""

    @property
    def trains(self) -> bool:
        """Whether the stage trains a model, and so has figures."""
        return self.stage in TRAINING

    @property
    def total_steps(self) -> int | None:
        """The steps of the whole run; None if they are not known yet."""
        recipe = self.record.get("recipe", {})
        epochs = number(recipe, "num_train_epochs")
        if epochs is None and self.stage in CONFIGURATIONS:
            epochs = defaults_of(self.stage).get("num_train_epochs")
        steps = number(recipe, "max_steps")
        return self.figures.total_steps(None if steps is None else int(steps), epochs)

    def seconds(self, now: float) -> float | None:
        """Seconds that the run took; while it goes on, those of this process."""
        if self.holder and not self.state.over:
            return max(0.0, now - self.holder.since)
        return number(self.record, "seconds")

    def refresh(self) -> None:
        """Read what is new in the files.

        The state comes first: what a run wrote before it ended is then read as well.
        """
        folder = self._folder()
        self._read_record(folder)
        self._read_state(folder)
        if self._folder() != folder:  # it was put in its place, or begun again, meanwhile
            folder = self._folder()
            self._read_record(folder)
            self._read_state(folder)
        self._read_metrics(folder / METRICS)
        self._read_samples(folder)
        self._read_heads(folder / HEADS)
        again, found = self._incidents.read(folder / INCIDENTS)
        self.incidents = len(found) + (0 if again else self.incidents)
        if found:
            self.incident = f"{found[-1].get('incident', 'incident')} at step {found[-1].get('step', '?')}"

    def _folder(self) -> Path:
        staging = staging_dir(self.target)
        return staging if (staging / PROVENANCE).is_file() else self.target

    def _read_record(self, folder: Path) -> None:
        try:
            status = (folder / PROVENANCE).stat()
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version != self._record_version:
                self.record, self._record_version = read_provenance(folder), version
        except (OSError, UserError):  # between two names, or damaged
            return
        self.stage = self.record.get("stage", self.stage)

    def _read_state(self, folder: Path) -> None:
        self.holder = find_holder(folder)
        ended = self.record.get("ended")
        if not isinstance(ended, dict):
            ended = {}
        self.reason = str(ended.get("reason", ""))
        if folder == self.target:
            self.state = State.FINISHED
        elif self.holder and self.holder.alive and not ended:
            self.state = State.RUNNING
        elif ended:
            self.state = State.STOPPED if ended.get("kind") == "stopped" else State.FAILED
        elif self.holder and self.holder.alive is None:
            self.state = State.ELSEWHERE
        else:
            self.state = State.KILLED

    def _read_metrics(self, file: Path) -> None:
        again, self.new = self._metrics.read(file)
        if again:
            self.figures = Figures()
        if self.new:
            try:
                when = file.stat().st_mtime
            except OSError:  # renamed meanwhile
                when = time.time()
            self.figures.add(self.new, when)

    def _read_samples(self, folder: Path) -> None:
        """The newest samples: of pretraining, or the completions of GRPO and RLOO, which have a file a step."""
        files = sorted((folder / "trainer" / "samples").glob("*.jsonl"))
        _, found = self._samples.read(files[-1] if files else folder / SAMPLES)
        if found:
            step = found[-1].get("step")
            self.samples = [text for record in found if record.get("step") == step and (text := sample_text(record))]
            self.samples_step = step

    def _read_heads(self, file: Path) -> None:
        again, found = self._heads.read(file)
        if again:
            self.heads, self.heads_step = [], -1
        for row in found:
            step = number(row, "step")
            if step is not None and step != self.heads_step:
                self.heads, self.heads_step = [], step
            self.heads.append(row)

    def strongest(self, probe: str, measure: str, count: int) -> list[HeadScore]:
        """The heads with the highest values of a measure at the newest captured step.

        Args:
            probe: `repeated` or `held_out`.
        """
        scores = [
            HeadScore(int(layer), int(head), value)
            for row in self.heads
            if row.get("probe") == probe
            and (value := number(row, measure)) is not None
            and (layer := number(row, "layer")) is not None
            and (head := number(row, "head")) is not None
        ]
        return sorted(scores, key=lambda score: -score.value)[:count]


def sample_text(record: dict[str, Any]) -> str:
    """The text of a sample: prompt and continuation; of a conversation, its last question and the answer."""
    if isinstance(record.get("text"), str):
        return record["text"]
    prompt, completion = _content(record.get("prompt")), _content(record.get("completion"))
    return f"{prompt}\n{completion}" if isinstance(record.get("prompt"), list) else prompt + completion


def _content(value: Any) -> str:
    if isinstance(value, list):
        value = value[-1].get("content") if value and isinstance(value[-1], dict) else ""
    return value if isinstance(value, str) else ""
