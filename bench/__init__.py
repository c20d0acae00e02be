"""Benchmarks: `ring0 bench NAME`. Each prints a table with a rival or a floor of the same run.

They assert nothing about time. A module has `run() -> list[Row]`.
"""
