"""Finds the fenced blocks of a Markdown page, and the orders for their test.

An order is a comment above the block, which no reader sees:

    <!-- test: feed plant/7/temp 21.5 -->

| order | what it means |
|---|---|
| `excused REASON` | the block cannot run; the reason is listed, and their number is bounded |
| `needs COMMAND` | it is left out where there is no such command, unless `INTEROP_REQUIRE` says that there must be |
| `feed TOPIC PAYLOAD` | the payload is retained on the topic while the block runs |
| `pump TOPIC PAYLOAD` | it is published again and again while the block runs |
| `serve TOPIC ANSWER` | requests on the topic are answered so while the block runs |
| `until TEXT` | the block goes on for ever: Ctrl-C is pressed when it has printed the text |
| `prints TEXT` | it prints the text |
| `output` | the block is what the block before it prints; `...` stands for anything |
| `raises NAME` | it ends with this exception |
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

ORDERS = frozenset({"excused", "feed", "pump", "serve", "until", "prints", "output", "raises", "needs"})

_ORDER = re.compile(r"^\s*<!-- test: (\S+)\s*(.*?)\s*-->\s*$")
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[\w-]*)(?P<rest>[^`]*)$")
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    language: str
    file: str | None
    text: str
    orders: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        """Where it is."""
        return f"{self.page.name}:{self.line} ({self.language})"

    def values(self, order: str) -> list[str]:
        """What stands behind each order of this name."""
        return [value for name, value in self.orders if name == order]

    def pairs(self, order: str) -> list[tuple[str, str]]:
        """Topic and payload of each order of this name."""
        return [(topic, payload) for topic, _, payload in (value.partition(" ") for value in self.values(order))]

    @property
    def is_runnable(self) -> bool:
        """Whether it can run here."""
        path = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"  # where Debian puts servers
        is_missing = any(shutil.which(command, path=path) is None for command in self.values("needs"))
        return self.excuse is None and (not is_missing or bool(os.environ.get("INTEROP_REQUIRE")))

    @property
    def excuse(self) -> str | None:
        """Why it cannot run, if so."""
        return next(iter(self.values("excused")), None)


def pages(root: Path) -> list[Path]:
    """The pages whose blocks are run."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page.

    Raises:
        ValueError: A fence is not closed, an order is not known, or no block follows it.
    """
    found: list[Block] = []
    orders: list[tuple[str, str]] = []
    lines = enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
    for number, line in lines:
        if order := _ORDER.match(line):
            if order[1] not in ORDERS:
                raise ValueError(f"{page}:{number}: unknown order {order[1]!r}")
            orders.append((order[1], order[2]))
        elif fence := _FENCE.match(line):
            inside = []
            for _, text in lines:
                if text.strip() == fence["fence"]:
                    break
                inside.append(text.removeprefix(fence["indent"]))
            else:
                raise ValueError(f"{page}:{number}: this fence is not closed")
            title = _TITLE.search(fence["rest"])
            # A title without a dot is a heading, and no file.
            name = title[1] if title and "." in title[1] else None
            text = "\n".join(inside) + "\n"
            found.append(Block(page, number + 1, fence["language"], name, text, tuple(orders)))
            orders = []
        elif line.strip() and orders:
            raise ValueError(f"{page}:{number}: an order is followed by no block")
    return found
