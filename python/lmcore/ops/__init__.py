"""The documented functions. Those of arrays and text need no torch; those of tensors do."""
