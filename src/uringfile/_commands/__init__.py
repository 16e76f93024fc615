"""``python -m uringfile cat``, ``cp`` and ``tail``: small programs that show how the library is
used, with nothing but its public names."""
