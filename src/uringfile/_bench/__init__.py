"""Measurements of uringfile beside other ways to do file I/O.

The workloads, and those contenders that need nothing but Python. ``python -m uringfile bench``
(``command``) runs them on the user's disk; the repository's ``benchmarks/`` runs them against
other packages, too.
"""
