"""Durations and sizes as people write them."""

import math
import re
from datetime import timedelta

_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*")
_SECONDS = {"ms": 1e-3, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def seconds(name: str, value: float | str | timedelta) -> float:
    """Seconds of a number, a `timedelta`, or text such as `"10min"`.

    Raises:
        ValueError: It is none of them.
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str):
        return _read(name, value, _SECONDS)
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number of seconds, not {value!r}")
    return number


def age_or_size(name: str, value: float | str | timedelta) -> tuple[float | None, int | None]:
    """Seconds or bytes: `"1h"` is a duration, `"100MB"` a size."""
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        if match and match[2].lower() in _BYTES:
            return None, int(_read(name, value, _BYTES))
    return seconds(name, value), None


def _read(name: str, text: str, units: dict[str, float] | dict[str, int]) -> float:
    match = _NUMBER.fullmatch(text)
    unit = units.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(
            f"{name} is a number and one of {', '.join(units)}, such as '10{list(units)[1]}', not {text!r}"
        )
    return float(match[1]) * unit
