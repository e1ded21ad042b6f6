"""Runs what the documentation shows: `parse` finds the fenced blocks, `page` runs those of one page, and `commands` are
what `ferromq`, `pip`, `make` and others mean in a block of shell.
"""
