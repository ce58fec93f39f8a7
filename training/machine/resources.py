"""The machine: cores that this process may use, what other programs take of them, memory, matrix-product rate.

Importing this module imports neither torch nor numpy.
"""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def affinity() -> set[int]:
    """The processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def quota() -> float | None:
    """Cores that the control group of this process may use at a time, or None without a limit.

    The tightest limit counts, of the group itself and of all groups above it: `cpu.max` of version 2,
    `cpu.cfs_quota_us` and `cpu.cfs_period_us` of version 1.
    """
    limits = []
    for line in _lines(PROC / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            roots, read = (CGROUP, CGROUP / "unified"), _limit_v2
        elif "cpu" in controllers.split(","):
            roots, read = (CGROUP / "cpu", CGROUP / controllers), _limit_v1
        else:
            continue
        for root in roots:
            # Inside a container the path may be the host's; then the mounted root is the group itself.
            group = root / path.strip("/")
            limits += [read(folder) for folder in {root, group, *group.parents} if folder.is_relative_to(root)]
    return min((limit for limit in limits if limit), default=None)


def _limit_v2(folder: Path) -> float | None:
    words = " ".join(_lines(folder / "cpu.max")).split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdigit() else None


def _limit_v1(folder: Path) -> float | None:
    numbers = [" ".join(_lines(folder / f"cpu.cfs_{name}_us")) for name in ("quota", "period")]
    return int(numbers[0]) / int(numbers[1]) if all(number.isdigit() for number in numbers) else None


def _lines(file: Path) -> list[str]:
    """Lines of a system file; none if it is missing or not readable."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def available_cores() -> int:
    """Whole cores for this process, by affinity and quota; at least one."""
    return max(1, min(len(affinity()), int(quota() or len(affinity()))))


def cores_per_process() -> int:
    """Whole cores for each process of a launcher on this machine, at least one."""
    return max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


class Load:
    """The cores that other programs use, from one reading to the next.

    This process and its descendants do not count, nor do the other processes of a launcher (LOCAL_WORLD_SIZE). Linux
    reports the load of the processors in `affinity`; elsewhere psutil gives the total of all processors.
    """

    def __init__(self):
        self.root = os.getppid() if int(os.environ.get("LOCAL_WORLD_SIZE", 1)) > 1 else os.getpid()
        self.restart()

    def restart(self) -> None:
        """Start the period that the next reading covers."""
        self.read_at, self.busy, self.own = time.monotonic(), busy_seconds(), tree_seconds(self.root)

    @property
    def elapsed(self) -> float:
        """Seconds since the last reading."""
        return time.monotonic() - self.read_at

    def others(self) -> float:
        """Mean number of cores that other programs have used since the last reading."""
        before = self.read_at, self.busy, self.own
        self.restart()
        wall, busy, own = self.read_at - before[0], self.busy - before[1], self.own - before[2]
        return max(0.0, busy - max(0.0, own)) / max(wall, 1e-3)


def busy_seconds() -> float:
    """Time that the processors of `affinity` were busy since the machine started."""
    names = {f"cpu{number}" for number in affinity()}
    rows = [line.split() for line in _lines(PROC / "stat")]
    if rows:  # user, nice, system, idle, iowait, irq, softirq; what a virtual machine's host takes comes after these
        ticks = [[int(word) for word in row[1:8]] for row in rows if row[0] in names]
        return sum(sum(row[:3] + row[5:]) for row in ticks) / os.sysconf("SC_CLK_TCK")
    import psutil

    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))


def tree_seconds(root: int) -> float:
    """Processor time of a process and its descendants, those that ended and were waited for included."""
    ticks, waiting, seen = 0, [root], set()
    while waiting:
        number = waiting.pop()
        if number in seen:
            continue
        seen.add(number)
        stat = " ".join(_lines(PROC / str(number) / "stat"))
        if not stat:
            continue
        ticks += sum(int(word) for word in stat.rpartition(")")[2].split()[11:15])
        try:
            tasks = list((PROC / str(number) / "task").iterdir())
        except OSError:
            continue
        for task in tasks:  # a child belongs to the thread that started it
            waiting += [int(word) for word in " ".join(_lines(task / "children")).split()]
    if ticks:
        return ticks / os.sysconf("SC_CLK_TCK")
    return sum(os.times()[:4])


@dataclass
class Machine:
    """The machine's processor, cores, memory and speed: printed by `scratch run`, and the basis of its estimates."""

    processor: str
    cores: int
    threads: int
    used_by_others: float  # cores
    memory: int  # bytes
    bf16: bool
    gpu: str | None
    rate: float  # floating-point operations per second of matrix products

    def describe(self) -> str:
        """One-line summary of the machine."""
        others = (
            f"other programs use {self.used_by_others:.1f} cores"
            if self.used_by_others >= 0.1
            else "nothing else running"
        )
        return (
            f"{self.gpu or self.processor}: {self.cores} core{'s' * (self.cores != 1)}, "
            f"{self.memory / 2**30:.1f} GiB of memory, {'bf16' if self.bf16 else 'no bf16'}, "
            f"matrix products at {self.rate / 1e9:,.0f} GFLOP/s "
            f"({self.threads} thread{'s' * (self.threads != 1)}), {others}"
        )


def measure() -> Machine:
    """The machine as it is now. Imports torch, and multiplies matrices for about half a second."""
    load = Load()
    import torch

    from training.common.device import has_bf16, matrix_product_rate, pick_device
    from training.machine.threads import follow_load

    device = pick_device()
    follow_load()
    others = load.others()
    dtype = torch.bfloat16 if has_bf16(device) else torch.float32
    return Machine(
        processor=processor_name(),
        cores=available_cores(),
        threads=torch.get_num_threads(),
        used_by_others=others,
        memory=memory_bytes(),
        bf16=dtype == torch.bfloat16,
        gpu=torch.cuda.get_device_name() if device.type == "cuda" else "Apple GPU" if device.type == "mps" else None,
        rate=matrix_product_rate(device, dtype),
    )


def processor_name() -> str:
    """The processor's model name, if the system reports it; otherwise its kind."""
    names = [line.partition(":")[2].strip() for line in _lines(PROC / "cpuinfo") if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def processor_flags() -> set[str]:
    """Instruction sets of an x86 processor as Linux names them, such as avx2; empty elsewhere."""
    rows = [line.partition(":")[2].split() for line in _lines(PROC / "cpuinfo") if line.startswith("flags")]
    return set(rows[0]) if rows else set()


def memory_bytes() -> int:
    """Memory of the machine, in bytes."""
    import psutil

    return psutil.virtual_memory().total
