"""A soak: mixed load on both engines in real loops, with faults switched on and off.

Everything that is read is verified. ``python -m tests.soak --minutes 60`` runs it.
"""
