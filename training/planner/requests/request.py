"""Requests in words: "7B on 8 x H100", "24 GB, 2 days, 50 dollars", "1B, 20B tokens", read strictly."""

import re
from dataclasses import dataclass, fields
from typing import Any

from training.common.errors import UserError
from training.planner.facts.devices import Device, Market
from training.planner.units import DAY, HOUR

COUNTS = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
TIMES = {"minutes": 60.0, "minute": 60.0, "min": 60.0, "hours": HOUR, "hour": HOUR, "h": HOUR}
TIMES |= {"days": DAY, "day": DAY, "d": DAY, "weeks": 7 * DAY, "week": 7 * DAY, "months": 30 * DAY, "month": 30 * DAY}
MONEY = ("dollars", "dollar", "usd", "$")
EXAMPLES = '"1B", "7B on 8 x H100", "1B, 20B tokens", "24 GB, 2 days, 50 dollars"'


@dataclass(frozen=True)
class Request:
    """A model, devices and limits that a user asks for; None where nothing is said.

    Attributes:
        parameters: of the model.
        tokens: of the run.
        device, devices: the kind of device and its number.
        memory_gb: of each device, where its kind is not named.
        seconds: at most, of the run.
        dollars: at most, for the run.
    """

    parameters: float | None = None
    tokens: float | None = None
    device: Device | None = None
    devices: int | None = None
    memory_gb: float | None = None
    seconds: float | None = None
    dollars: float | None = None


def read_request(text: str, market: Market) -> Request:
    """The request in a text: parts separated by commas or `on`, in any order.

    Raises:
        UserError: a part that is not understood, an unknown unit or accelerator, a part given twice.
    """
    found: dict[str, Any] = {}
    for part in re.split(r"\s*[,;]\s*|\s+(?:on|with|in|for|and)\s+", text.strip()):
        if not part:
            continue
        for name, value in _read_part(part, market).items():
            if name in found:
                raise UserError(f"'request': '{part}' gives {name} a second time; leave one of them out")
            found[name] = value
    if not found:
        raise UserError(f"'request': it is empty; write one such as {EXAMPLES}")
    return Request(**found)


def _read_part(part: str, market: Market) -> dict[str, Any]:
    several = re.fullmatch(r"(\d+)\s*[x×*]\s*(\S.*)", part, re.IGNORECASE)
    if several:
        count = int(several[1])
        if not 1 <= count <= 1_000_000:
            raise UserError(f"'request': {count} devices; name from 1 to 1,000,000")
        memory = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:GB|GiB)", several[2], re.IGNORECASE)
        if memory:
            return {"devices": count, "memory_gb": _positive(memory[1], part)}
        return {"devices": count, "device": market.find(several[2])}
    if part.lower() in (key.lower() for key in _spellings(market)):
        return {"device": market.find(part)}
    dollars = re.fullmatch(r"\$\s*([\d_,.]+)", part)
    if dollars:
        return {"dollars": _positive(dollars[1], part)}
    quantity = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?(?:e\d+)?)\s*([kmbt](?![a-z]))?\s*(.*)", part, re.IGNORECASE)
    if not quantity:
        return {"device": market.find(part)}  # which names the nearest
    return _read_quantity(part, quantity[1], (quantity[2] or ""), quantity[3])


def _read_quantity(part: str, digits: str, scale: str, unit: str) -> dict[str, Any]:
    number = re.match(r"[\d_.e]+", part, re.IGNORECASE)[0]
    rest = part[len(number):].strip()  # with the letter of the scale, which may be the first of a unit
    value, name = _positive(number, part), rest.lower()
    if name in TIMES:
        return {"seconds": value * TIMES[name]}
    if name in MONEY:
        return {"dollars": value}
    if name in ("gb", "gib", "gb vram", "gb memory"):
        return {"memory_gb": value}
    scaled = value * COUNTS.get(scale.lower(), 1.0)
    if unit.lower() in ("tokens", "token"):
        return {"tokens": scaled}
    if scale and unit.lower() in ("", "parameters", "params", "model"):
        return {"parameters": scaled}
    if not rest:
        raise UserError(f"'request': '{part}' has no unit; write 1B, 20B tokens, 24 GB, 2 days or 50 dollars")
    raise UserError(
        f"'request': unknown unit '{rest}' in '{part}'; use M or B (parameters), tokens, GB, hours, days or dollars"
    )


def _positive(digits: str, part: str) -> float:
    try:
        value = float(digits.replace(",", "").replace("_", ""))
    except ValueError:
        raise UserError(f"'request': '{part}' has no readable number; write one such as 1.5") from None
    if not 0 < value < 1e18:
        raise UserError(f"'request': '{part}' must be above 0 and below 1e18; correct the number")
    return value


def _spellings(market: Market) -> list[str]:
    return [name for device in market.devices for name in (device.name, *device.aliases)]


def is_given(request: Request) -> list[str]:
    """Names of what a request says."""
    return [field.name for field in fields(request) if getattr(request, field.name) is not None]
