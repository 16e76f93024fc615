"""The workloads, one kind a module."""

from __future__ import annotations

from uringfile._bench.workloads import (
    appends,
    idle,
    large_write,
    lines,
    many_in_flight,
    random_reads,
    random_writes,
    read_many,
    sequential,
    small_files,
    ticker,
)
from uringfile._bench.workloads._workload import Run, Workload

_MODULES = (
    random_reads,
    random_writes,
    large_write,
    sequential,
    appends,
    lines,
    read_many,
    small_files,
    ticker,
    many_in_flight,
    idle,
)

#: In the order of the report.
ALL: dict[str, Workload] = {
    workload.name: workload for module in _MODULES for workload in module.WORKLOADS
}

__all__ = ["ALL", "Run", "Workload"]
