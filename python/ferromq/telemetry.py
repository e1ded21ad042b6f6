"""Messages as tables: collect them, watch them, record them, replay them.

    table = ferromq.collect("mqtt://localhost", "plant/{line}/{sensor}/temp", seconds=30, decode="json")
    polars.DataFrame(table)

Decoding is done in Rust, straight into Arrow columns, which pandas, polars, pyarrow and DuckDB take without a copy.
All of this blocks and needs no event loop, so it works in scripts and notebooks alike.
"""

import glob
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from os import PathLike, fspath
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias

from . import _progress, _units
from ._ferromq import Broker, Capture, Client, InvalidArgument, RecordBatch, Replay, SyncClient, Table, read_parquet

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

__all__ = ["Live", "Recording", "Replaying", "collect", "live", "read", "record", "replay"]


class ArrowStream(Protocol):
    """Anything whose columns can be taken: a frame of polars or pandas, a table of pyarrow, a relation of DuckDB."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Its columns, as a stream of batches in a capsule."""


Server: TypeAlias = str | Sequence[str] | Broker | Client | SyncClient
Duration: TypeAlias = float | str | timedelta
Schema: TypeAlias = Mapping[str, Any]
Decode: TypeAlias = str | tuple[str, Sequence[str]] | Callable[[RecordBatch], ArrowStream] | None
OnError: TypeAlias = Literal["null", "raise", "raw"]
Path: TypeAlias = str | PathLike[str]


def collect(
    server: Server,
    *filters: str | Sequence[str],
    seconds: Duration | None = None,
    rows: int | None = None,
    decode: Decode = None,
    schema: Schema | None = None,
    on_error: OnError = "null",
    max_bytes: int = 2 << 30,
    qos: Literal[0, 1, 2] = 0,
    retained: bool = True,
    progress: bool | None = None,
    **client: Any,  # noqa: ANN401 - what `SyncClient` takes
) -> Table:
    """Collect messages into a table, for some time or until there are enough.

    Ctrl-C ends it early and gives what there is.

    Args:
        server: URL, `Broker`, or a `Client` or `SyncClient` that is connected.
        filters: Topic filters; each `{name}` in them is a column.
        seconds: How long.
        rows: How many rows.
        decode: `"json"`, `"cbor"`, `"msgpack"`, `"number"`, `"text"`, `"sparkplug"`; the format of a packed struct such
            as `"<ffI"`, or that and names, `("<ffI", ["x", "y", "n"])`; or a function that is given each `RecordBatch`
            with its column `payload` and returns a frame. `None`: the column `payload`.
        schema: Names and types of the fields, such as `{"ts": "timestamp[ms]", "device": str, "value": float}`; other
            fields are left out. `None`: types are learnt from all rows; what fits no other type becomes JSON text.
        on_error: What becomes of a payload that cannot be decoded: `"null"` and counted in `errors`, `"raise"`, or
            `"raw"`: also kept in the column `raw`.
        max_bytes: Memory at most; the collection ends there with a warning.
        qos: Quality of service to subscribe with.
        retained: Also take what is retained.
        progress: Show a progress bar. `None`: in a terminal or a notebook.
        client: More arguments for the `SyncClient` that is made for a URL or a broker.

    Returns:
        The table.

    Raises:
        ValueError: Neither `seconds` nor `rows` is given.
        DecodeError: A payload could not be decoded, and `on_error` is `"raise"`.
        FerroMQError: The server cannot be reached, or the subscription ended.
    """
    if seconds is None and rows is None:
        raise ValueError("collect for some seconds, or some rows, or until whichever comes first")
    duration = None if seconds is None else _units.seconds("seconds", seconds)
    decoder = None if callable(decode) else decode
    with _Connection(server, client) as connection:
        capture = Capture(
            connection,
            *filters,
            decode=decoder,
            schema=schema,
            on_error=on_error,
            rows=rows,
            max_bytes=max_bytes,
            qos=qos,
            retained=retained,
        )
        try:
            _wait("collecting", capture, duration, rows, progress)
        except KeyboardInterrupt:
            warnings.warn("interrupted: the table has what came until now", stacklevel=2)
        capture.stop()
    if capture.progress["full"]:
        warnings.warn(f"the table is full: max_bytes is {max_bytes}", stacklevel=2)
    return _decoded(capture.table(), decode)


class Live:
    """A table that goes on in the background. `live` makes it.

    In a notebook it is a chart that moves. `table()`, `to_polars()` and `to_pandas()` give what there is at any moment.
    """

    def __init__(self, connection: "_Connection", capture: Capture, decode: Decode) -> None:
        """Take over what `live` has made."""
        self._connection = connection
        self._capture = capture
        self._decode = decode
        self._chart: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def table(self) -> Table:
        """All rows that are kept now. Columns are shared with what goes on, not copied."""
        return _decoded(self._capture.table(), self._decode)

    def to_polars(self) -> "pl.DataFrame":
        """All rows that are kept now, as a `polars.DataFrame`."""
        frame: pl.DataFrame = self.table().to_polars()
        return frame

    def to_pandas(self) -> "pd.DataFrame":
        """All rows that are kept now, as a `pandas.DataFrame`."""
        frame: pd.DataFrame = self.table().to_pandas()
        return frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.table().__arrow_c_stream__(requested_schema)

    @property
    def progress(self) -> dict[str, Any]:
        """Numbers, as `Capture.progress` has them."""
        return self._capture.progress

    def stop(self) -> None:
        """End it. What was kept stays.

        Raises:
            DecodeError: A payload could not be decoded, and `on_error` is `"raise"`.
            FerroMQError: The subscription had ended.
        """
        try:
            self._capture.stop()
        finally:
            self._connection.close()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:  # noqa: ANN401 - Jupyter's
        from ._chart import chart  # noqa: PLC0415 - anywidget is optional and takes its time

        if self._chart is None:
            self._chart = chart(self)
        if self._chart is None:
            return {"text/plain": repr(self), "text/html": self.table()._repr_html_()}
        return self._chart._repr_mimebundle_(include=include, exclude=exclude)

    def __repr__(self) -> str:
        return f"Live({self._capture!r})"


def live(
    server: Server,
    *filters: str | Sequence[str],
    decode: Decode = None,
    schema: Schema | None = None,
    on_error: OnError = "null",
    keep: Duration | None = "10min",
    keep_rows: int | None = None,
    max_bytes: int = 2 << 30,
    qos: Literal[0, 1, 2] = 0,
    retained: bool = True,
    **client: Any,  # noqa: ANN401 - what `SyncClient` takes
) -> Live:
    """Collect messages in the background and keep the last ones. Returns at once.

    Args:
        server: As in `collect`, and so for the rest.
        filters: Topic filters.
        decode: Decoder.
        schema: Names and types.
        on_error: What becomes of a payload that cannot be decoded.
        keep: How long rows are kept: seconds, a `timedelta`, or text such as `"10min"`. `None`: for ever.
        keep_rows: How many rows are kept.
        max_bytes: Memory at most; the oldest rows go.
        qos: Quality of service.
        retained: Also take what is retained.
        client: More arguments for the `SyncClient`.

    Raises:
        FerroMQError: The server cannot be reached, or refuses the subscription.
    """
    connection = _Connection(server, client)
    try:
        capture = Capture(
            connection.open(),
            *filters,
            decode=None if callable(decode) else decode,
            schema=schema,
            on_error=on_error,
            keep=None if keep is None else _units.seconds("keep", keep),
            keep_rows=keep_rows,
            max_bytes=max_bytes,
            qos=qos,
            retained=retained,
        )
    except BaseException:
        connection.close()
        raise
    return Live(connection, capture, decode)


class Recording:
    """Messages on their way into Parquet files. `record` makes it; leaving its `with` block completes the file."""

    def __init__(self, connection: "_Connection", capture: Capture) -> None:
        """Take over what `record` has made."""
        self._connection = connection
        self._capture = capture

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def rows(self) -> int:
        """Rows until now."""
        return int(self._capture.progress["rows"])

    @property
    def bytes(self) -> int:
        """Bytes of the files, and of what waits to be written."""
        return int(self._capture.progress["file_bytes"])

    @property
    def lag(self) -> float:
        """Age of the last message when it was taken, seconds."""
        return float(self._capture.progress["lag"])

    @property
    def errors(self) -> int:
        """Messages that could not be decoded."""
        return int(self._capture.progress["errors"])

    @property
    def files(self) -> list[str]:
        """Files that are complete."""
        return [str(path) for path in self._capture.files]

    @property
    def progress(self) -> dict[str, Any]:
        """Numbers, as `Capture.progress` has them."""
        return self._capture.progress

    def wait(self, seconds: Duration | None = None, *, progress: bool | None = None) -> None:
        """Record for so long, or until Ctrl-C.

        Args:
            seconds: How long; `None` is for ever.
            progress: Show a progress bar. `None`: in a terminal or a notebook.
        """
        duration = None if seconds is None else _units.seconds("seconds", seconds)
        _wait("recording", self._capture, duration, None, progress)

    def stop(self) -> None:
        """Complete the file, and disconnect.

        Raises:
            OSError: It could not be written.
            FerroMQError: The subscription had ended; what had come is in the file.
        """
        try:
            self._capture.stop()
        finally:
            self._connection.close()

    def __repr__(self) -> str:
        return f"Recording({self._capture.path!s}, {self.rows} rows)"


def record(
    server: Server,
    filters: str | Sequence[str],
    path: Path,
    *,
    rotate: Duration | None = None,
    compression: Literal["zstd"] | int | None = "zstd",
    overwrite: bool = False,
    decode: str | tuple[str, Sequence[str]] | None = None,
    schema: Schema | None = None,
    on_error: OnError = "raw",
    qos: Literal[0, 1, 2] = 0,
    retained: bool = True,
    **client: Any,  # noqa: ANN401 - what `SyncClient` takes
) -> Recording:
    """Record messages into Parquet files in the background. Returns at once.

    A file is complete or absent: it is written under a hidden name first. Without `decode` it has payloads as they
    came, with their QoS, retain flags and properties: `replay` sends them unchanged, and `read` decodes them later.
    With `decode` the first rows of a file, those of two seconds at most, decide what columns it has; values that find
    no place in them are kept in its column `rest`, as JSON text.

    Args:
        server: As in `collect`, and so for the rest.
        filters: A topic filter or several.
        path: The file; with `rotate` its name gets a number: `run.parquet` is `run-0001.parquet`, and so on.
        rotate: Begin another file after this time (`"1h"`) or size (`"100MB"`).
        compression: `"zstd"`, a level of it from 1 to 22, or `None`.
        overwrite: Replace a file that is there.
        decode: Decoder.
        schema: Names and types.
        on_error: What becomes of a payload that cannot be decoded.
        qos: Quality of service.
        retained: Also take what is retained.
        client: More arguments for the `SyncClient`.

    Raises:
        InvalidArgument: The file is there already, or an argument cannot be.
        FerroMQError: The server cannot be reached, or refuses the subscription.
    """
    if callable(decode):
        raise TypeError("files are written without Python: record payloads as they are, and decode what `read` gives")
    seconds, size = (None, None) if rotate is None else _units.age_or_size("rotate", rotate)
    level = 0 if compression is None else _ZSTD_LEVEL if compression == "zstd" else compression
    if not isinstance(level, int):
        raise InvalidArgument(f'compression is "zstd", a level of it from 1 to 22, or None, not {compression!r}')
    connection = _Connection(server, client)
    try:
        capture = Capture(
            connection.open(),
            *((filters,) if isinstance(filters, str) else filters),
            decode=decode,
            schema=schema,
            on_error="null" if decode is None else on_error,
            path=path,
            rotate=seconds,
            rotate_bytes=size,
            compression=level,
            overwrite=overwrite,
            qos=qos,
            retained=retained,
        )
    except BaseException:
        connection.close()
        raise
    return Recording(connection, capture)


class Replaying:
    """A replay that has not begun: await it, or `run()` it."""

    def __init__(
        self, server: Server, client: Mapping[str, Any], make: Callable[[Any], Replay], show: bool | None
    ) -> None:
        """Take over what `replay` has made."""
        self._server = server
        self._client = client
        self._make = make
        self._show = show

    def run(self) -> int:
        """Replay, and wait for the end; how many messages were dealt with."""
        done = 0
        with _Connection(self._server, self._client) as connection:
            replay = self._make(connection)
            with _progress.bar("replaying", replay.rows, show=self._show) as bar:
                while (count := replay.step_blocking()) is not None:
                    done += count
                    bar.update(done, f"{done} messages")
        return done

    def __await__(self) -> Generator[Any, Any, int]:
        return self._run().__await__()

    async def _run(self) -> int:
        if isinstance(self._server, (Client, SyncClient)):
            return await self._steps(self._server)
        async with Client(self._server, **self._client) as client:
            return await self._steps(client)

    async def _steps(self, client: Client | SyncClient) -> int:
        done = 0
        replay = self._make(client)
        with _progress.bar("replaying", replay.rows, show=self._show) as bar:
            while (count := await replay.step()) is not None:
                done += count
                bar.update(done, f"{done} messages")
        return done


def replay(
    paths: Path | Sequence[Path],
    server: Server,
    *,
    speed: float | None = 1,
    map: Callable[[str], str | None] | None = None,  # noqa: A002 - what it does
    where: str | None = None,
    qos: Literal[0, 1, 2] | None = None,
    retain: bool | None = None,
    progress: bool | None = None,
    **client: Any,  # noqa: ANN401 - what the client takes
) -> Replaying:
    """Publish recorded messages again, in their order, and with the time between them.

        await ferromq.replay("run.parquet", "mqtt://localhost", speed=10)
        ferromq.replay("run.parquet", "mqtt://localhost").run()     # without an event loop

    A recording without payloads, as `decode` makes it, is published as JSON objects of its columns.

    Args:
        paths: One file or several; `*` stands for any part of a name.
        server: URL, `Broker`, or a client that is connected.
        speed: How many times as fast as it was. `None`: as fast as the server takes it.
        map: Gives the topic to publish to for each topic; `None` leaves its messages out.
        where: Which rows, as SQL says it: `"line = 'L1' and value > 20"`.
        qos: Quality of service. `None`: that they came with, as far as the files tell, else 0.
        retain: Whether to publish them as retained messages. `None`: those that were.
        progress: Show a progress bar. `None`: in a terminal or a notebook.
        client: More arguments for the client that is made.
    """

    def make(connected: Client | SyncClient) -> Replay:
        return Replay(connected, _expand(paths), speed=speed, where=where, map=map, qos=qos, retain=retain)

    return Replaying(server, client, make, progress)


def read(
    paths: Path | Sequence[Path],
    *,
    where: str | None = None,
    decode: Decode = None,
    names: str | Sequence[str] = (),
    schema: Schema | None = None,
    on_error: OnError = "null",
    progress: bool | None = None,
) -> Table:
    """Read Parquet files into one table. Columns that a file does not have are null; types are widened.

    Args:
        paths: One file or several; `*` stands for any part of a name.
        where: Which rows, as SQL says it: `"line = 'L1' and value > 20"`.
        decode: Decode the column `payload` of what was recorded without; as in `collect`.
        names: The filters with names of levels, for columns of them.
        schema: As in `collect`.
        on_error: As in `collect`.
        progress: Show a progress bar. `None`: in a terminal or a notebook, if it takes a while.

    Raises:
        OSError: A file cannot be read.
        InvalidArgument: It is no Parquet file, or `where` names a column that is not there.
    """
    patterns = [names] if isinstance(names, str) else list(names)
    decoder = None if callable(decode) else decode
    begun = time.monotonic()
    with ExitStack() as stack:
        bars: list[_progress.Bar] = []

        def watch(done: int, total: int) -> None:
            if not bars and (progress or time.monotonic() - begun >= _PATIENCE):
                bars.append(stack.enter_context(_progress.bar("reading", total, show=progress)))
            for bar in bars:
                bar.update(done, f"{done:,} rows")

        table = read_parquet(
            _expand(paths),
            where=where,
            decode=decoder,
            names=patterns,
            schema=schema,
            on_error=on_error,
            progress=None if progress is False else watch,
        )
    return _decoded(table, decode)


class _Connection:
    """A client for as long as it is needed: one that was given stays open, one that is made does not."""

    def __init__(self, server: Server, options: Mapping[str, Any]) -> None:
        self._given = server if isinstance(server, (Client, SyncClient)) else None
        if self._given is not None and options:
            raise TypeError(f"a client is connected already: it cannot take {', '.join(options)}")
        self._made = None if isinstance(server, (Client, SyncClient)) else SyncClient(server, **options)

    def open(self) -> Client | SyncClient:
        if self._given is not None:
            return self._given
        if self._made is None:
            raise RuntimeError("a connection is given or made")
        return self._made.connect()

    def close(self) -> None:
        if self._made is not None:
            self._made.disconnect()

    def __enter__(self) -> Client | SyncClient:
        return self.open()

    def __exit__(self, *exc: object) -> None:
        self.close()


def _wait(title: str, capture: Capture, duration: float | None, rows: int | None, show: bool | None) -> None:
    """Wait for so long, or until the capture has ended."""
    begun = time.monotonic()
    total = duration if duration is not None else rows
    with _progress.bar(title, total, show=show) as bar:
        while True:
            passed = time.monotonic() - begun
            left = _SLICE if duration is None else min(_SLICE, duration - passed)
            if left <= 0 or capture.wait(left):
                return
            numbers = capture.progress
            note = f"{numbers['rows']:,} rows, {numbers['rows'] / max(passed, _SLICE):,.0f} per second"
            bar.update(min(passed, duration) if duration is not None else numbers["rows"], note)


def _decoded(table: Table, decode: Decode) -> Table:
    """The table as a decoder in Python makes it."""
    if not callable(decode):
        return table
    return Table.concat([decode(batch) for batch in table.batches()])


def _expand(paths: Path | Sequence[Path]) -> list[str]:
    """The files that are meant, sorted; a pattern must stand for some."""
    given = [paths] if isinstance(paths, (str, PathLike)) else list(paths)
    found: list[str] = []
    for given_path in given:
        path = fspath(given_path)
        matches = sorted(glob.glob(path)) if glob.has_magic(path) else [path]  # noqa: PTH207 - of any folder
        if not matches:
            raise FileNotFoundError(f"there is no file {path}")
        found += matches
    return found


# How often a progress bar moves, seconds.
_SLICE = 0.1

# Of what is over by then, seconds, nobody needs a bar.
_PATIENCE = 0.5

# Level of zstd: above this files hardly get smaller, and writing them takes much longer.
_ZSTD_LEVEL = 3
