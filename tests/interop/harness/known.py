"""Faults of other people's brokers and clients that the matrix has met, each with its reason.

Strict: an entry that no longer fails is an error. FerroMQ's broker has no entry and gets none.
"""

from __future__ import annotations

import pytest

from harness.cells import Cell

# (broker, client, version or None for both, test) -> what is wrong, and with whom
FAULTS: dict[tuple[str, str, int | None, str], str] = {}


def marks(broker: str, cell: Cell, test: str) -> tuple[pytest.MarkDecorator, ...]:
    for version in (cell.version, None):
        reason = FAULTS.get((broker, cell.client, version, test))
        if reason is not None:
            return (pytest.mark.xfail(reason=reason, strict=True),)
    return ()
