"""Definitions: short, slow, in the papers' letters. Nothing here imports lmcore."""
