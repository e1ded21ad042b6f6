"""The console script: the command line is written in Rust, and the same as that of the cargo binary."""

import signal
import sys


def main() -> None:
    """Run the `ferromq` command with the arguments of this process, and exit with its code."""
    from ._ferromq import cli_main  # noqa: PLC0415 - so that importing this module costs nothing

    # Python's handler would wait for the interpreter, which is not running while the command is.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(cli_main(["ferromq", *sys.argv[1:]]))
