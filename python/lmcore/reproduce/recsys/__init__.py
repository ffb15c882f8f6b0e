"""Claims of UFNRec."""

from lmcore.reproduce.recsys import four_arms, mined_false_negatives

CLAIMS = (*mined_false_negatives.CLAIMS, *four_arms.CLAIMS)
