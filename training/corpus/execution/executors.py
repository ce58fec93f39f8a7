"""Executors of datatrove, which start tasks on this machine, on Slurm and on Ray. Needs datatrove."""

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor
from loguru import logger

from training.common.errors import UserError
from training.corpus.execution.config import EngineConfig
from training.corpus.execution.workers import Workers
from training.machine.resources import available_cores

Task = Callable[[Any, int, int], None]  # as datatrove calls it: documents, number of the task, number of all tasks

JOB = "job"  # file with the id of the Slurm job
_POLL = 30  # seconds between checks of Slurm's queue; the first ones are more frequent
_NO_SLURM = "'engine.kind': slurm: sbatch and squeue are not on this machine; run this on a Slurm login node"
_ROOT = Path(__file__).parents[3]


def start(config: EngineConfig, name: str, task: Task, tasks: int, folder: Path) -> None:
    """Run all tasks. Returns when they are over, or as soon as Slurm has accepted them.

    Args:
        name: name of the work.
        folder: for logs and other files of the engine.

    Raises:
        UserError: the engine does not take them, or a task was killed.
    """
    _STARTS[config.kind](config, name, task, tasks, folder)


def _local(config: EngineConfig, name: str, task: Task, tasks: int, folder: Path) -> None:
    workers = min(config.workers or available_cores(), tasks)
    _Local([task], tasks, workers, str(folder), skip_completed=False).run()


class _Local(LocalPipelineExecutor):
    """Local executor with our workers: datatrove's pool waits forever for a killed one and outlives its parent."""

    def run(self) -> None:
        self.save_executor_as_json()
        with Workers(self.workers, _silence, flag="--engine.workers") as workers, _quiet():
            for _ in workers.map(_run_task, ((self, rank) for rank in range(self.tasks))):
                pass


def _silence() -> None:
    logger.disable("datatrove")


def _run_task(_: None, task: tuple[LocalPipelineExecutor, int]) -> None:
    executor, rank = task
    executor._run_for_rank(rank)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep datatrove's log off the terminal, where every user error would show as a traceback; its files have it."""
    logger.disable("datatrove")
    try:
        yield
    finally:
        logger.enable("datatrove")


def _ray(config: EngineConfig, name: str, task: Task, tasks: int, folder: Path) -> None:
    import ray
    from datatrove.executor import RayPipelineExecutor

    if not ray.is_initialized():
        try:
            ray.init(runtime_env={"env_vars": {"PYTHONPATH": str(_ROOT)}}, log_to_driver=False, logging_level="ERROR")
        except ConnectionError as error:
            raise UserError(f"'engine.kind': no Ray cluster found ({error}); set RAY_ADDRESS") from None
    with _quiet():
        RayPipelineExecutor(
            [task],
            tasks,
            config.workers or -1,
            logging_dir=str(folder),
            skip_completed=False,
            mem_per_cpu_gb=config.memory_gb,
        ).run()


def _slurm(config: EngineConfig, name: str, task: Task, tasks: int, folder: Path) -> None:
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        raise UserError("'engine.kind': slurm: this is a task of a job array; run the command outside of it")
    path = f"{shlex.quote(str(Path(sys.executable).parent))}:$PATH"
    executor = _Slurm(
        [task],
        tasks,
        config.time,
        config.partition,
        mem_per_cpu_gb=config.memory_gb,
        workers=config.workers or -1,
        job_name=f"scratch-{name}",
        qos=None,
        # The Python of this process, and this copy of scratch, whether it is installed or not.
        env_command=f"export PATH={path} PYTHONPATH={shlex.quote(str(_ROOT))}:$PYTHONPATH OMP_NUM_THREADS=1",
        sbatch_args=config.sbatch,
        logging_dir=str(folder),
        skip_completed=False,
    )
    try:
        with _quiet():
            executor.run()
    except FileNotFoundError:
        raise UserError(_NO_SLURM) from None
    except subprocess.CalledProcessError as error:
        raise UserError(
            f"'engine': sbatch rejected the job (exit code {error.returncode}); see its message above"
        ) from None
    (folder / JOB).write_text(executor.job_id, encoding="utf-8")


class _Slurm(SlurmPipelineExecutor):
    def launch_merge_stats(self) -> None:
        """Start no job to merge statistics: tasks have none."""


def submitted(folder: Path) -> str | None:
    """The Slurm job that is still queued or running, or None."""
    file = folder / JOB
    job = file.read_text(encoding="utf-8") if file.is_file() else None
    return job if job and _queued(job) else None


def wait(job: str) -> None:
    """Wait until a Slurm job is over."""
    pause = 1
    while _queued(job):
        time.sleep(pause)
        pause = min(2 * pause, _POLL)


def _queued(job: str) -> bool:
    try:
        found = subprocess.run(["squeue", "--noheader", "--jobs", job], capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(_NO_SLURM) from None
    if found.returncode:
        # Slurm forgets jobs that ended long ago; other errors may be temporary.
        return "invalid job id" not in found.stderr.lower()
    return bool(found.stdout.strip())


_STARTS = {"local": _local, "slurm": _slurm, "ray": _ray}
