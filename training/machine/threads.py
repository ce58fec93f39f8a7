"""The number of torch's threads: all cores when the machine is free, fewer while other programs need them.

Threads wait for each other at every operation. Two of them that share their cores with a busy program take 4 to 40
times as long as one thread. So every stage that trains, generates or scores calls `follow_load` between steps or
batches; it measures the load about twice a second. OMP_NUM_THREADS in the environment fixes the number.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from training.machine.resources import Load, cores_per_process, processor_flags

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INTERVAL = 0.5  # seconds between two measurements
FIRST_LOOK = 0.2  # minimum seconds of the first measurement
# Cores that other programs may use without a change of the number: it falls after one measurement, and rises only after
# four in a row that found less. Their use is measured, not idle time, because it does not depend on our own threads.
TOO_MUCH, LITTLE = 0.4, 0.25
CALM_LOOKS = 4


def numbers_of_threads(cores: int) -> list[int]:
    """The numbers to choose from, ascending. Few, since a compiled network is compiled again for each of them."""
    return sorted({1, cores, max(1, cores - 1), max(1, cores // 2), max(1, cores // 4)})


class Threads:
    """Chooses a number of threads by the load.

    Args:
        cores: that this process may use.
        load: of other programs.
    """

    def __init__(self, cores: int, load: Load):
        self.numbers, self.load = numbers_of_threads(cores), load
        self.number: int | None = None  # none chosen yet
        self.calm: list[int] = []  # numbers allowed by the last consecutive measurements, each above `number`

    def look(self) -> int:
        """The number to use from now on."""
        if self.number is not None and self.load.elapsed < INTERVAL:
            return self.number
        return self.choose(self.load.others())

    def choose(self, others: float) -> int:
        """The number to use while others use so many cores."""
        if self.number is None or self._fitting(others, TOO_MUCH) < self.number:
            self.number, self.calm = self._fitting(others, TOO_MUCH), []
        elif self._fitting(others, LITTLE) > self.number:
            self.calm.append(self._fitting(others, LITTLE))
            if len(self.calm) == CALM_LOOKS:
                self.number, self.calm = min(self.calm), []
        else:
            self.calm = []
        return self.number

    def _fitting(self, others: float, allowance: float) -> int:
        free = self.numbers[-1] - max(0, math.ceil(others - allowance))
        return max(number for number in self.numbers if number <= max(1, free))


_threads: Threads | None = None  # of this process


def follow_load() -> str | None:
    """Set the number of torch's threads by the load. Returns a line to print if the number changed.

    Call it from the thread that computes, between two steps or batches: OpenMP keeps a number for each thread. It costs
    microseconds, and half a millisecond twice a second.
    """
    global _threads
    if "OMP_NUM_THREADS" in os.environ:
        return None
    import torch

    first = _threads is None
    if first:
        cores = cores_per_process()
        if sys.platform == "darwin":  # PyTorch takes the fast cores only; a slow one would hold them all up
            cores = min(cores, torch.get_num_threads())
        _threads = Threads(cores, Load())
        time.sleep(FIRST_LOOK)
    number, most = _threads.look(), _threads.numbers[-1]
    if not first and number == torch.get_num_threads():
        return None
    torch.set_num_threads(number)
    why = "other programs need cores" if number < most else "none needed by other programs"
    return f"{number} thread{'s' * (number != 1)} on {most} core{'s' * (most != 1)}, {why}"


def follow_load_in(model: "PreTrainedModel") -> None:
    """Call `follow_load` before a model's forwards without gradients: each batch scored, each token generated."""
    import torch

    def look(*_: Any) -> None:
        if not torch.is_grad_enabled():
            follow_load()

    # Every forward passes the embedding, also inside adapters and in the decoder that bypasses the modules.
    model.get_input_embeddings().register_forward_pre_hook(look)


@contextmanager
def _number_of_threads(number: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def same_bits(work: Callable[[], list[float]]) -> bool | None:
    """Whether one thread computes the same bits as the present number of threads; None where that is one already.

    Args:
        work: computes the same at every call, and returns checksums of it.
    """
    import torch

    if torch.get_num_threads() == 1:
        return None
    several = work()
    with _number_of_threads(1):
        return work() == several


def use_reproducible_products() -> None:
    """Make MKL, the library of most fp32 matrix products, sum in an order that is the same for any number of threads.

    It reads the environment when torch is loaded, so call this before. On processors of other makers than Intel, MKL
    replaces the setting by its own best choice, with the same fixed order. Measured cost: none.
    """
    flags = processor_flags()
    branch = "AVX512" if "avx512f" in flags else "AVX2" if "avx2" in flags else None
    if branch:
        os.environ.setdefault("MKL_CBWR", f"{branch},STRICT")
