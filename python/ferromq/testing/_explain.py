"""What came instead: the texts of failed expectations.

A test that waits in vain says little by itself. These functions put beside the expectation what came nearest to it: the
same topic with another payload, and where the two differ; or, if nothing came on such a topic, the topics most alike.
"""

from __future__ import annotations

import json
from collections import Counter
from difflib import SequenceMatcher, ndiff
from typing import TYPE_CHECKING, Any, Protocol

from ferromq import topic_matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import EllipsisType

# Bounds of what is shown, and of what is compared to find it: messages, topics, characters.
_SHOWN_MAX = 5
_TOPICS_MAX = 500
_TEXT_CHARS_MAX = 4_000
_SUMMARY_CHARS_MAX = 60
_DIFF_LINES_MAX = 20


class Seen(Protocol):
    """What a message must have to be compared: those of FerroMQ and those of a cassette."""

    @property
    def topic(self) -> str:
        """Topic name."""

    @property
    def payload(self) -> bytes:
        """Payload."""

    @property
    def qos(self) -> int:
        """Quality of service."""

    @property
    def retain(self) -> bool:
        """Retain flag."""


class Expectation:
    """What a message has to be like; `...` and `None` (for flags) leave it open."""

    __slots__ = ("filter", "json", "payload", "qos", "retain", "where")

    def __init__(
        self,
        filter: str,  # noqa: A002 - MQTT's name for it
        payload: bytes | bytearray | memoryview | str | EllipsisType = ...,
        *,
        json: Any = ...,  # noqa: ANN401 - JSON is anything
        qos: int | None = None,
        retain: bool | None = None,
        where: Callable[[Any], object] | None = None,
    ) -> None:
        topic_matches(filter, "x")  # raises if it is not valid, where it was written and not where it is used
        self.filter = filter
        if isinstance(payload, str):
            payload = payload.encode()
        self.payload = payload if payload is ... else bytes(payload)
        self.json = json
        self.qos = qos
        self.retain = retain
        self.where = where

    def is_met_by(self, message: Seen) -> bool:
        """Whether this is such a message."""
        return topic_matches(self.filter, message.topic) and next(self.differences(message), None) is None

    def differences(self, message: Seen) -> Iterator[str]:
        """In what a message on a matching topic differs; nothing if it does not."""
        if self.payload is not ... and message.payload != self.payload:
            yield "payload: " + _payload_difference(self.payload, message.payload)
        if self.json is not ...:
            try:
                found = json.loads(message.payload)
            except ValueError:
                yield f"payload: not JSON: {summary(message.payload)}"
            else:
                if found != self.json:
                    yield "payload:\n" + "\n".join("  " + text for text in _json_differences(self.json, found))
        if self.qos is not None and message.qos != self.qos:
            yield f"qos: expected {self.qos}, got {message.qos}"
        if self.retain is not None and message.retain != self.retain:
            yield f"retain: expected {self.retain}, got {message.retain}"
        if self.where is not None and not self.where(message):
            yield f"where: {getattr(self.where, '__name__', 'the function')} said no"

    def __str__(self) -> str:
        told = [repr(self.filter)]
        if self.payload is not ...:
            told.append(f"payload {summary(self.payload)}")
        if self.json is not ...:
            told.append(f"JSON {_shortened(json.dumps(self.json, ensure_ascii=False, default=repr))}")
        if self.qos is not None:
            told.append(f"QoS {self.qos}")
        if self.retain is not None:
            told.append("retained" if self.retain else "not retained")
        if self.where is not None:
            told.append(f"where {getattr(self.where, '__name__', 'a function')} says yes")
        return ", ".join(told)


def missing(expectation: Expectation, messages: Sequence[Seen], outcome: str) -> str:
    """Why an expectation was not met: `outcome`, then what came instead."""
    return "\n".join([outcome, *_instead(expectation, messages)])


def unwanted(outcome: str, messages: Sequence[Seen]) -> str:
    """What came although it should not have."""
    return "\n".join([outcome, *_listed(messages)])


def topics_like(filter: str, messages: Sequence[Seen]) -> list[str]:  # noqa: A002
    """The topics most like a filter, with how many messages came and the last payload of each."""
    last = {message.topic: message for message in messages}
    counts = Counter(message.topic for message in messages)

    def likeness(topic: str) -> float:
        return SequenceMatcher(None, filter, topic, autojunk=False).ratio()

    topics = sorted(list(last)[:_TOPICS_MAX], key=likeness, reverse=True)
    lines = [f"  {topic}  x{counts[topic]}, last {summary(last[topic].payload)}" for topic in topics[:_SHOWN_MAX]]
    return [*lines, f"  and {len(last) - _SHOWN_MAX} other topics"] if len(last) > _SHOWN_MAX else lines


def line(message: Seen) -> str:
    """A message in one line."""
    retain = ", retained" if message.retain else ""
    return f"{message.topic}  {summary(message.payload)}  (QoS {message.qos}{retain})"


def summary(payload: bytes) -> str:
    """A payload in few characters: as text if it is, else as bytes."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        shown = repr(payload[:_SUMMARY_CHARS_MAX])
    else:
        if text.isprintable() and len(text) <= _SUMMARY_CHARS_MAX:
            return repr(text)
        shown = repr(text[:_SUMMARY_CHARS_MAX])
    return shown if len(payload) <= _SUMMARY_CHARS_MAX else f"{shown}... {len(payload)} bytes"


def _instead(expectation: Expectation, messages: Sequence[Seen]) -> Iterator[str]:
    near = [message for message in messages if topic_matches(expectation.filter, message.topic)]
    if near:
        yield f"{len(near)} on matching topics, but" if len(near) > 1 else "one on a matching topic, but"
        for message in near[-_SHOWN_MAX:]:
            yield "  " + line(message)
            differences = list(expectation.differences(message)) or ["this one is as expected"]
            for difference in differences:
                yield from ("    " + text for text in difference.splitlines())
        if len(near) > _SHOWN_MAX:
            yield f"  and {len(near) - _SHOWN_MAX} earlier ones"
    elif messages:
        yield f"none came on such a topic; {len(messages)} came on others, the most alike first:"
        yield from topics_like(expectation.filter, messages)
    else:
        yield "no message came at all"


def _listed(messages: Sequence[Seen]) -> Iterator[str]:
    for message in messages[:_SHOWN_MAX]:
        yield "  " + line(message)
    if len(messages) > _SHOWN_MAX:
        yield f"  and {len(messages) - _SHOWN_MAX} more"


def _payload_difference(expected: bytes, found: bytes) -> str:
    try:
        texts = expected.decode(), found.decode()
    except UnicodeDecodeError:
        return _bytes_difference(expected, found)
    if max(map(len, texts)) > _TEXT_CHARS_MAX:
        return _bytes_difference(expected, found)
    if max(len(text.splitlines()) for text in texts) <= 1 and max(map(len, texts)) <= _SUMMARY_CHARS_MAX:
        return f"expected {texts[0]!r}, got {texts[1]!r}"
    lines = [text.rstrip("\n") for text in ndiff(texts[0].splitlines(), texts[1].splitlines())]
    shown = [text for text in lines if not text.startswith("  ")][:_DIFF_LINES_MAX]
    return "- is expected, + came\n" + "\n".join(shown)


def _bytes_difference(expected: bytes, found: bytes) -> str:
    pairs = zip(expected, found, strict=False)
    first = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(expected), len(found)))
    start = max(first - 4, 0)

    def around(data: bytes) -> str:
        return data[start : start + 16].hex(" ") or "(end)"

    sizes = f"{len(expected)} bytes expected, {len(found)} came"
    return f"{sizes}; from byte {start} on, different at {first}:\n- {around(expected)}\n+ {around(found)}"


def _json_differences(expected: Any, found: Any, path: str = "$") -> list[str]:  # noqa: ANN401
    if isinstance(expected, dict) and isinstance(found, dict):
        lines: list[str] = []
        for key in [*expected, *(key for key in found if key not in expected)]:
            at = f"{path}.{key}"
            if key not in found:
                lines.append(f"{at}: expected {_json(expected[key])}, is not there")
            elif key not in expected:
                lines.append(f"{at}: not expected, is {_json(found[key])}")
            else:
                lines += _json_differences(expected[key], found[key], at)
        return lines[:_DIFF_LINES_MAX]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        lines = []
        for index, (one, other) in enumerate(zip(expected, found, strict=True)):
            lines += _json_differences(one, other, f"{path}[{index}]")
        return lines[:_DIFF_LINES_MAX]
    return [] if expected == found else [f"{path}: expected {_json(expected)}, got {_json(found)}"]


def _json(value: Any) -> str:  # noqa: ANN401
    return _shortened(json.dumps(value, ensure_ascii=False, default=repr))


def _shortened(text: str) -> str:
    return text if len(text) <= _SUMMARY_CHARS_MAX else text[:_SUMMARY_CHARS_MAX] + "..."
