"""The workloads, one kind a module."""

from __future__ import annotations

from benchmarks.workloads import (
    lines,
    random_reads,
    random_writes,
    read_many,
    sequential,
    small_files,
    ticker,
)
from benchmarks.workloads._workload import Run, Workload

_MODULES = (random_reads, random_writes, sequential, lines, read_many, small_files, ticker)

#: In the order of the report.
ALL: dict[str, Workload] = {
    workload.name: workload for module in _MODULES for workload in module.WORKLOADS
}

__all__ = ["ALL", "Run", "Workload"]
