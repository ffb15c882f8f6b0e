"""All claims, in the order of the report: one module per claim, one folder per system."""

from lmcore.reproduce import compression, detox, diffusion, ner, openba, recsys
from lmcore.reproduce.claim import Claim

CLAIMS: dict[str, Claim] = {
    claim.id: claim
    for claim in (
        *ner.CLAIMS,
        *openba.CLAIMS,
        *compression.CLAIMS,
        *detox.CLAIMS,
        *diffusion.CLAIMS,
        *recsys.CLAIMS,
    )
}


def select_claims(only: list[str] | None) -> list[Claim]:
    """Returns claims by their names or their systems'.

    Args:
        only: names; all claims if None.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> [claim.id for claim in select_claims(["matching_speed"])]
        ['matching_speed']
    """
    if only is None:
        return list(CLAIMS.values())
    known = [*dict.fromkeys(claim.system for claim in CLAIMS.values()), *CLAIMS]
    unknown = [name for name in only if name not in known]
    if unknown:
        raise ValueError(
            f"only must name systems or claims: got {', '.join(unknown)}; "
            f"known are {', '.join(known)}"
        )
    return [claim for claim in CLAIMS.values() if claim.id in only or claim.system in only]
