"""Recipe keys of `engine`: where the work of `scratch prepare` runs."""

from dataclasses import dataclass
from typing import Any, Literal

from training.stages.recipe import option


@dataclass
class EngineConfig:
    """The engine that runs the work of `scratch prepare` as tasks."""

    kind: Literal["local", "slurm", "ray"] | None = option(
        None, "engine that starts the tasks: local (this machine), slurm, ray (the cluster of RAY_ADDRESS)"
    )
    tasks: int = option(16, "maximum number of tasks to split the work into", at_least=1)
    workers: int = option(
        0, "tasks that run at a time; 0 for one per core (local), or as many as fit in the cluster", at_least=0
    )
    memory_gb: int = option(4, "memory of a task in GB; a task has one core (slurm, ray)", at_least=1)
    partition: str | None = option(None, "Slurm partition")
    time: str = option("24:00:00", "time limit of a task (slurm)")
    sbatch: dict[str, str] = option(dict, "more options for sbatch, as in {account: mine}")

    def __post_init__(self):
        if self.kind == "slurm" and not self.partition:
            raise ValueError("'engine.partition' is missing; name the Slurm partition to run in (`sinfo` lists them)")
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
