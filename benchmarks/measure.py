"""One contender at one workload, as a pyperf script.

``python -m benchmarks.measure WORKLOAD CONTENDER [--directory DIR] [pyperf's options]`` measures
it alone, in pyperf's way. ``benchmarks.run`` starts it as a pyperf worker for each round.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pyperf

from benchmarks.contenders import NAMES, load
from uringfile._bench.contenders import Contender, Gap
from uringfile._bench.cost import Cost
from uringfile._bench.files import MIB
from uringfile._bench.workloads import ALL, Run, Workload

#: Exit status for a gap; the reason is the last line of stderr.
GAP = 77


def main() -> None:
    runner = pyperf.Runner(
        program_args=("-m", "benchmarks.measure"), add_cmdline_args=_pass_arguments
    )
    runner.argparser.add_argument("workload", choices=ALL)
    runner.argparser.add_argument("contender", choices=NAMES)
    runner.argparser.add_argument("--directory", type=Path, required=True)
    runner.argparser.add_argument("--result", help="where a worker writes its benchmark")
    args = runner.parse_args()
    workload = ALL[args.workload]
    if not args.worker:
        workload.prepare(args.directory, 256 * MIB)
        _manage(runner, workload)
        return
    try:
        bench = _measure(runner, workload, load(args.contender), args.directory)
    except Gap as gap:
        print(gap, file=sys.stderr)
        sys.exit(GAP)
    if args.result:
        bench.dump(args.result)


def _pass_arguments(command: list[str], args: argparse.Namespace) -> None:
    """pyperf starts its workers by a command line of its own."""
    command += [args.workload, args.contender, "--directory", str(args.directory)]


def _bench_name(args: argparse.Namespace) -> str:
    return f"{args.workload}/{args.contender}"


def _manage(runner: pyperf.Runner, workload: Workload) -> None:
    """Outside of a worker pyperf never calls the function."""
    runner.bench_time_func(
        _bench_name(runner.args), lambda loops: 0.0, inner_loops=workload.per_loop
    )


def _measure(
    runner: pyperf.Runner, workload: Workload, contender: Contender, directory: Path
) -> pyperf.Benchmark:
    version = contender.version()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    stack = AsyncExitStack()
    try:
        job = loop.run_until_complete(stack.enter_async_context(workload.job(contender, directory)))
        bench = _time(runner, workload, loop, job)
        bench.update_metadata({"contender": version})
        loop.run_until_complete(stack.aclose())
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        loop.close()
    return bench


def _time(
    runner: pyperf.Runner, workload: Workload, loop: asyncio.AbstractEventLoop, job: Run
) -> pyperf.Benchmark:
    """Let pyperf time the job; beside each value it keeps the processor time and the memory."""
    costs: list[tuple[int, Cost]] = []

    def time_func(loops: int) -> float:
        cost: Cost = loop.run_until_complete(job(loops))
        costs.append((loops, cost))
        return cost.seconds

    bench = runner.bench_time_func(
        _bench_name(runner.args), time_func, inner_loops=workload.per_loop
    )
    values = costs[-runner.args.values :]
    operations = sum(loops for loops, _ in values) * workload.per_loop
    cpu = sum(cost.cpu_seconds for _, cost in values)
    peak = max(cost.peak_bytes for _, cost in values)
    bench.update_metadata({"cpu_seconds_per_operation": cpu / operations, "peak_bytes": peak})
    return bench


if __name__ == "__main__":
    main()
