"""A seeded simulation of the driver and of everything above it.

One random generator decides what is called, cancelled, completed, refused and delayed; time
is virtual, and threads are jobs that run when the simulation says so. So a seed replays
exactly. ``python -m tests.simulate`` runs it.
"""
