"""Measurements of uringfile beside other ways to do file I/O; README.md says how to run them."""
