"""Quantities of a plan: estimates with bounds, and numbers as text with their units."""

from dataclasses import dataclass

GIB = 2**30
HOUR, DAY = 3600.0, 86400.0


@dataclass(frozen=True)
class Estimate:
    """A quantity that cannot be known exactly: the expected value between two bounds, in one unit."""

    low: float
    expected: float
    high: float

    @classmethod
    def exact(cls, value: float) -> "Estimate":
        """A quantity that is known: all three are the same."""
        return cls(value, value, value)

    def __mul__(self, factor: float) -> "Estimate":
        return Estimate(self.low * factor, self.expected * factor, self.high * factor)

    def __truediv__(self, divisor: float) -> "Estimate":
        return self * (1 / divisor)

    def __add__(self, other: "Estimate") -> "Estimate":
        return Estimate(self.low + other.low, self.expected + other.expected, self.high + other.high)


def as_count(count: float) -> str:
    """A count in three digits: 124M, 1.10B, 8.76B, 15.0T."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= unit * 0.9995:
            return f"{three_digits(count / unit)}{name}"
    return f"{count:,.0f}"


def as_bytes(size: float) -> str:
    """A number of bytes in units of 1,024, as device memory is counted: 612 MiB, 23.4 GiB."""
    for unit, name in ((2**40, "TiB"), (GIB, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{three_digits(size / unit)} {name}"
    return f"{size:.0f} B"


def as_decimal_bytes(size: float) -> str:
    """A number of bytes in units of 1,000, as disks and texts are counted: 4.20 GB."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{three_digits(size / unit)} {name}"
    return f"{size:.0f} B"


def as_time(seconds: float) -> str:
    """A time in the unit in which it is read: 40 ms, 12.0 s, 35 min, 7.5 h, 12 days."""
    for unit, least, name in ((DAY, 2 * DAY, "days"), (HOUR, 2 * HOUR, "h"), (60.0, 120.0, "min"), (1.0, 1.0, "s")):
        if seconds >= least:
            return f"{three_digits(seconds / unit)} {name}"
    return f"{three_digits(seconds * 1000)} ms"


def as_dollars(amount: float) -> str:
    """An amount of US dollars: $0.42, $73, $1,720,320."""
    return f"${amount:,.2f}" if amount < 10 else f"${amount:,.0f}"


def three_digits(value: float) -> str:
    """A number in three digits, or as a whole number: 0.42, 63.9, 652,300."""
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"
