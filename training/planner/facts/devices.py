"""Accelerators and prices: dated tables with a source a row, and the user's own beside them."""

from dataclasses import dataclass
from pathlib import Path

FACTS = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Device:
    """A kind of accelerator.

    Attributes:
        name: as users write it, such as `H100 SXM`.
        teraflops: dense bf16 matrix products (fp16 where the device has no bf16), 10^12 operations per second.
        memory_gb: 10^9 bytes for a GPU's data sheet unit as the vendor prints it.
        bandwidth_tb: of its memory, 10^12 bytes per second.
        watts: thermal design power; None where it is not published.
        source, date: where and when the figures were read.
    """

    name: str
    teraflops: float
    memory_gb: float
    bandwidth_tb: float
    watts: float | None = None
    source: str
    date: str
    aliases: tuple[str, ...] = ()
    cpu: bool = False
