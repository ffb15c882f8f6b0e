"""Claims of GNER."""

from lmcore.reproduce.ner import (
    labelling_choices,
    matching_rescue,
    matching_speed,
    negative_instances,
)

CLAIMS = (
    *matching_rescue.CLAIMS,
    *matching_speed.CLAIMS,
    *negative_instances.CLAIMS,
    *labelling_choices.CLAIMS,
)
