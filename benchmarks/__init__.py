"""Benchmarks, by hand only: `python -m benchmarks`, or `make bench`. Everything happens on this machine."""
