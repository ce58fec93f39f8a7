"""Recipe keys of `engine`: where the work of `scratch prepare` runs."""

from dataclasses import dataclass
from typing import Any, Literal

from training.common.recipe import option


@dataclass
class EngineConfig:
    kind: Literal["local", "slurm", "ray"] | None = option(
        None, "what starts the tasks: local (this machine), slurm, ray (the cluster of RAY_ADDRESS); none to do without"
    )
    tasks: int = option(16, "tasks at most that the parts of the text are dealt out to")
    workers: int = option(0, "tasks at a time; 0 for one each core (local), or as many as there is room for")
    memory_gb: int = option(4, "memory of a task, which has one core (slurm, ray)")
    partition: str | None = option(None, "of Slurm")
    time: str = option("24:00:00", "after which Slurm ends a task")
    sbatch: dict[str, str] = option(dict, "more options of sbatch, as in {account: mine}")

    def __post_init__(self):
        if self.tasks < 1 or self.workers < 0 or self.memory_gb < 1:
            raise ValueError("'engine.tasks' and 'engine.memory_gb' are positive numbers, 'engine.workers' is one or 0")
        if self.kind == "slurm" and not self.partition:
            raise ValueError("'engine.partition' names the Slurm partition to run in (`sinfo` lists them)")
        for name, kinds in _KINDS.items():
            if getattr(self, name) != _default(name) and self.kind not in kinds:
                raise ValueError(f"'engine.{name}' has no effect without 'engine.kind': {' or '.join(kinds)}")


_KINDS = {
    **dict.fromkeys(("tasks", "workers"), ("local", "slurm", "ray")),
    "memory_gb": ("slurm", "ray"),
    **dict.fromkeys(("partition", "time", "sbatch"), ("slurm",)),
}


def _default(name: str) -> Any:
    found = EngineConfig.__dataclass_fields__[name]
    return {} if found.default_factory is dict else found.default
