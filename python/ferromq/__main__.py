"""`python -m ferromq` is the `ferromq` command."""

from .cli import main

main()
