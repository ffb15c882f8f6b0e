"""What the training of every system shares: loop, configuration, checkpoints, seeds, averages."""

from lmcore._extras import optional_imports

with optional_imports():
    import torch as _torch  # noqa: F401  (what the modules need)
