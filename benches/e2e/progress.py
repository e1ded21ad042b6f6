"""A bar on standard error, where somebody looks."""

import sys

WIDTH = 30


def show(what: str, share: float) -> None:
    """How far it is; a share of 1 ends the line."""
    if not sys.stderr.isatty():
        return
    filled = round(share * WIDTH)
    end = "\n" if share == 1.0 else ""
    print(f"\r[{'#' * filled}{'.' * (WIDTH - filled)}] {what:80.80}", end=end, file=sys.stderr, flush=True)
