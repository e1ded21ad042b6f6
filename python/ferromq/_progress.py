"""A progress bar where somebody looks: rich or tqdm in a terminal, tqdm or rich in a notebook, else nothing."""

import sys
from typing import Any, Protocol, Self


class Bar(Protocol):
    """What a bar can do."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(self, *exc: object) -> None:
        """Stop showing."""
        ...

    def update(self, done: float, note: str = "") -> None:
        """Show how far it is."""
        ...


def bar(title: str, total: float | None, *, show: bool | None) -> Bar:
    """A bar for something that ends at `total`, or never.

    Args:
        title: What is going on.
        total: Its end; `None` if that is not known.
        show: `None`: if standard error is a terminal, or this is a notebook.
    """
    is_notebook = _is_notebook()
    if show is None:
        show = is_notebook or (sys.stderr is not None and sys.stderr.isatty())
    if not show:
        return _Silent()
    for make in (_tqdm, _rich) if is_notebook else (_rich, _tqdm):
        found = make(title, total)
        if found is not None:
            return found
    return _Silent()


def _is_notebook() -> bool:
    shell = sys.modules.get("IPython")
    kernel = shell.get_ipython() if shell is not None else None
    return kernel is not None and hasattr(kernel, "kernel")


def _rich(title: str, total: float | None) -> Bar | None:
    try:
        from rich.console import Console  # noqa: PLC0415 - only if there is something to show
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    except ImportError:
        return None
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[note]}"))
    return _Rich(Progress(*columns, console=Console(stderr=True), transient=True), title, total)


def _tqdm(title: str, total: float | None) -> Bar | None:
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415 - only if there is something to show
    except ImportError:
        return None
    template = "{desc} |{bar}| {elapsed} {postfix}" if total is not None else "{desc} {elapsed} {postfix}"
    return _Tqdm(tqdm(desc=title, total=total, bar_format=template, leave=False))


class _Silent:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def update(self, done: float, note: str = "") -> None:
        pass


class _Rich:
    def __init__(self, progress: Any, title: str, total: float | None) -> None:  # noqa: ANN401 - rich is optional
        self._progress = progress
        self._task = progress.add_task(title, total=total, note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def update(self, done: float, note: str = "") -> None:
        self._progress.update(self._task, completed=done, note=note)


class _Tqdm:
    def __init__(self, progress: Any) -> None:  # noqa: ANN401 - tqdm is optional
        self._progress = progress

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.close()

    def update(self, done: float, note: str = "") -> None:
        self._progress.set_postfix_str(note, refresh=False)
        self._progress.update(done - self._progress.n)
