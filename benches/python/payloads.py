"""What is sent: numbered payloads of 16 bytes, and JSON as machines send it. Receivers check the last number."""

import json

from table import BLOCK, JSON_TOPIC, PAYLOAD_BYTES

DEVICES = 500


def block() -> list[bytes]:
    """A thousand payloads, each with its number in it."""
    return [number.to_bytes(PAYLOAD_BYTES, "big") for number in range(BLOCK)]


def is_last(payload: bytes, count: int) -> bool:
    """Whether it is the payload that comes last of `count`."""
    return int.from_bytes(payload, "big") == (count - 1) % BLOCK


def json_block(start: int) -> list[tuple[str, bytes]]:
    """A thousand messages of 500 devices, about 74 bytes each."""
    found = []
    for number in range(start, start + BLOCK):
        device = f"dev{number % DEVICES:03}"
        value = {
            "ts": 1_760_000_000_000 + number,
            "device": device,
            "value": number % 977 / 10,
            "unit": "C",
            "ok": True,
        }
        found.append((f"{JSON_TOPIC}/{device}", json.dumps(value, separators=(",", ":")).encode()))
    return found


def json_sum(count: int) -> float:
    """What the column `value` sums up to."""
    return sum(number % 977 for number in range(count)) / 10
