"""What the training of every system shares: loop, configuration, checkpoints, seeds, averages."""

from importlib.util import find_spec

from lmcore._extras import MissingExtra

# Looked for, not imported: settings and seeds are used before a model is.
if find_spec("torch") is None:
    raise MissingExtra("torch", "train")
