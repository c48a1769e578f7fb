"""Benchmarks: ours beside a peer, in turns, in one run, as a ratio. `make bench`, or `python -m tests.bench --help`.

Compare figures of one run only. Nothing here asserts a time; a peer that is missing ends the run with its package's name.
"""
