"""Accelerators and prices: dated tables with a source a row, and the user's own beside them."""

import datetime
import re
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.stages.recipe import build, option, required
from training.stages.yaml_values import read_yaml

DEVICES, PRICES = (Path(__file__).parent / name for name in ("devices.yaml", "prices.yaml"))
EXAMPLE = "{name: X, teraflops: 100, memory_gb: 24, bandwidth_tb: 1, watts: 300, source: data sheet, date: 2026-01-31}"


@dataclass(frozen=True, kw_only=True)
class Device:
    """A kind of accelerator.

    Attributes:
        name, aliases: as users write it, such as `H100 SXM` and `H100`.
        teraflops: dense bf16 matrix products (fp16 where the device has no bf16), 10^12 operations per second.
        memory_gb: as the vendor names it, 2^30 bytes each.
        bandwidth_tb: of its memory, 10^12 bytes per second.
        watts: thermal design power; None where it is not published.
        source, date: where and when the figures were read.
        cpu: whether it is a processor, whose memory holds everything else too.
    """

    name: str = required("name of the accelerator")
    aliases: list[str] = option(list, "other names")
    teraflops: float = required("dense bf16 matrix products, 10^12 operations per second", above=0)
    memory_gb: float = required("memory in units of 2^30 bytes", above=0)
    bandwidth_tb: float = required("memory bandwidth, 10^12 bytes per second", above=0)
    watts: float | None = option(None, "thermal design power", above=0)
    source: str = required("where the figures come from")
    date: str = required("day on which they were read, as 2026-01-31")
    cpu: bool = option(False, "a processor")

    @property
    def memory(self) -> float:
        """Bytes that the device has."""
        return self.memory_gb * 2**30

    @property
    def rate(self) -> float:
        """Floating-point operations per second of its matrix products, at best."""
        return self.teraflops * 1e12


@dataclass(frozen=True, kw_only=True)
class Price:
    """A provider's price of a device, on a day.

    Attributes:
        dollars: US dollars per device and hour, on demand.
        hint: read on a second-hand page.
    """

    device: str = required("name of the accelerator")
    dollars: float = required("US dollars per device and hour", at_least=0)
    provider: str = option("", "who asks for it")
    source: str = required("where the price was read")
    date: str = required("day on which it was read, as 2026-01-31")
    hint: bool = option(False, "from a second-hand page")


@dataclass(frozen=True)
class Market:
    """Known devices and prices."""

    devices: list[Device]
    prices: list[Price] = field(default_factory=list)

    def find(self, name: str) -> Device:
        """The device of this name, in any case and with or without spaces.

        Raises:
            UserError: unknown; names the nearest, and how to describe one.
        """
        names = self.names()
        found = names.get(_key(name))
        if found is None:
            import difflib

            close = difflib.get_close_matches(_key(name), names, n=3, cutoff=0.4)
            nearest = ", ".join(dict.fromkeys(names[key].name for key in close)) or ", ".join(
                device.name for device in self.devices
            )
            raise UserError(
                f"'device': unknown accelerator '{name}' (nearest: {nearest}); choose one, or describe it in a file "
                f"with --devices FILE, devices: [{EXAMPLE}]"
            )
        return found

    def names(self) -> dict[str, Device]:
        """Devices by their names and aliases, in lower case without spaces."""
        return {_key(name): device for device in self.devices for name in (device.name, *device.aliases)}

    def prices_of(self, device: Device) -> list[Price]:
        """Prices of a device, hints only where there is nothing else; the user's own replace those of the table."""
        found = [price for price in self.prices if _key(price.device) in map(_key, (device.name, *device.aliases))]
        return [price for price in found if not price.hint] or found


def median_price(prices: list[Price]) -> float:
    """US dollars per device and hour in the middle of several prices."""
    return statistics.median(price.dollars for price in prices)


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()


def read_market(own: Path | None = None) -> Market:
    """The shipped tables, and the rows of the user's file before them.

    Args:
        own: YAML with `devices` and `prices`, lists of rows as in the shipped files. A device of a known name replaces
            it; the prices of a device replace the shipped ones.

    Raises:
        UserError: a row with an unknown key, a wrong type, or without a date.
    """
    devices = [_device(row, DEVICES.name) for row in read_rows(DEVICES)]
    prices = [_price(row, PRICES.name) for row in read_rows(PRICES)]
    if own is None:
        return Market(devices, prices)
    given = read_yaml(str(own))
    unknown = set(given) - {"devices", "prices"}
    if unknown or not all(isinstance(rows, list) for rows in given.values()):
        raise UserError(f"{own}: takes 'devices' and 'prices', each a list of rows; correct it, such as [{EXAMPLE}]")
    new = [_device(row, str(own)) for row in given.get("devices", [])]
    asked = [_price(row, str(own)) for row in given.get("prices", [])]
    replaced = {_key(name) for device in new for name in (device.name, *device.aliases)}
    repriced = {_key(price.device) for price in asked}
    kept = [device for device in devices if _key(device.name) not in replaced]
    return Market([*new, *kept], [*asked, *(price for price in prices if _key(price.device) not in repriced)])


def read_rows(file: Path) -> list[Any]:
    """The rows of a shipped table."""
    from training.stages.yaml_values import load_yaml

    return load_yaml(file.read_text(encoding="utf-8"))


def _device(row: Any, where: str) -> Device:
    return build(Device, _dated(row, where, "device"), where)


def _price(row: Any, where: str) -> Price:
    return build(Price, _dated(row, where, "price"), where)


def _dated(row: Any, where: str, kind: str) -> dict[str, Any]:
    """A row with its date as text. Raises UserError: it has none."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: a {kind} is a mapping, not {row!r:.60}; write it as {EXAMPLE}")
    date, name = row.get("date"), row.get("name", row.get("device", "?"))
    if not isinstance(date, datetime.date) and not _is_date(date):
        raise UserError(f"{where}: 'date': the {kind} of {name} has no date; add the day it was read, as 2026-01-31")
    return row | {"date": str(date)}


def _is_date(text: Any) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except (TypeError, ValueError):
        return False
    return True
