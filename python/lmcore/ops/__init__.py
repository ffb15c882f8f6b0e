"""The documented functions. Array and text ops; none of them needs torch."""
