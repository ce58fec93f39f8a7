"""Accelerate's launcher for stages whose recipe folder has a launch file for them, `accelerate/STAGE.yaml`."""

from pathlib import Path

from training.common.errors import UserError
from training.common.shipped import with_shipped
from training.stages.yaml_values import read_yaml


def launcher_of(stage: str, path: Path) -> list[str]:
    """The words after `python` that start a stage by its launch file; empty without one.

    Args:
        path: of the stage's recipe.

    Raises:
        UserError: the file is for several machines.
    """
    file = with_shipped(path.parent / "accelerate" / f"{stage}.yaml")
    if not file.is_file():
        return []
    machines = read_yaml(file).get("num_machines", 1)
    if machines > 1:
        raise UserError(
            f"'{stage}': {file} is for {machines} machines; start it on each with accelerate launch (docs/cluster.md), "
            "then rerun this command"
        )
    return ["-m", "accelerate.commands.launch", "--config_file", str(file)]
