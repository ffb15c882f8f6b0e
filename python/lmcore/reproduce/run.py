"""Claims are measured with several seeds, judged, and written to a report."""

import os
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path

from tqdm import tqdm

from lmcore import __version__
from lmcore.reproduce import (
    four_arms,
    matching_rescue,
    matching_speed,
    mined_false_negatives,
    report,
)
from lmcore.reproduce.claim import Claim, Measurement, ResultRow, make_row
from lmcore.reproduce.report import RunInfo

CLAIMS: dict[str, Claim] = {
    claim.id: claim
    for claim in (
        *matching_rescue.CLAIMS,
        *matching_speed.CLAIMS,
        *mined_false_negatives.CLAIMS,
        *four_arms.CLAIMS,
    )
}


def reproduce(
    only: Sequence[str] | None = None,
    seeds: int = 3,
    quick: bool = True,
    out: str | os.PathLike[str] = "report",
    progress: bool = True,
) -> list[ResultRow]:
    """Returns one row per claim, and writes `results.json` and `index.html` into a folder.

    Both files are complete after each claim, so that a run that is stopped leaves the claims
    that it finished.

    Args:
        only: systems or claims to measure; all if None.
        seeds: number of seeds, 0 to seeds - 1. With one there is no spread and no verdict.
        quick: smaller experiments.
        out: folder of the report; made if it does not exist.
        progress: whether to show a progress bar.

    Raises:
        ImportError: matplotlib, which draws the plots, or what a claim's system needs is not
            installed; the message says how to install it.
        ValueError: an unknown name, or fewer than one seed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = reproduce(["matching_rescue"], seeds=1, out=folder, progress=False)
        >>> [(row.id, row.verdict) for row in rows]
        [('matching_rescue', 'measured')]
    """
    claims = _select(only)
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1: got {seeds}")
    # What is absent is said now, not after the claims that can do without it.
    report.import_matplotlib()
    for system in dict.fromkeys(claim.system for claim in claims):
        import_module(f"lmcore.{system}")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    started = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")

    rows: list[ResultRow] = []
    with tqdm(total=len(claims) * seeds, disable=not progress, unit="run") as bar:
        for claim in claims:
            start = time.perf_counter()
            measurements: list[Measurement] = []
            for seed in range(seeds):
                bar.set_description(f"{claim.id}, seed {seed}")
                measurements.append(claim.measure(seed, quick))
                bar.update()
            seconds = time.perf_counter() - start
            rows.append(make_row(claim, measurements, range(seeds), seconds))
            report.write_report(rows, _describe_run(seeds, quick, started), folder)
    return rows


def _select(only: Sequence[str] | None) -> list[Claim]:
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


def _describe_run(seeds: int, quick: bool, started: str) -> RunInfo:
    # A package that no claim has imported by now had no part in the numbers.
    versions = {"lmcore": __version__, "Python": platform.python_version()}
    for package in ("numpy", "torch", "triton", "transformers"):
        if package in sys.modules:
            versions[package] = metadata.version(package)
    return RunInfo(
        seeds=tuple(range(seeds)),
        quick=quick,
        versions=versions,
        device=_describe_device(),
        started=started,
    )


def _describe_device() -> str:
    cores = os.cpu_count() or 1
    threads = f"{cores} thread{'s' if cores > 1 else ''}"
    device = f"{_processor_name()}, {threads}, {platform.system()}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        device += f"; {torch.cuda.get_device_name()}"
    return device


def _processor_name() -> str:
    """Returns the processor's trade name; the standard library knows only its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
