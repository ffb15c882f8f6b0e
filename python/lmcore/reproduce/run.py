"""Claims are measured with several seeds, judged, and written to a report."""

import dataclasses
import itertools
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from lmcore.reproduce.catalogue import select_claims
from lmcore.reproduce.claim import (
    SIZES,
    Claim,
    Measurement,
    ResultRow,
    Size,
    make_absent_row,
    make_row,
)
from lmcore.reproduce.conditions import (
    RunInfo,
    count_cores,
    describe_device,
    describe_versions,
    find_conditions,
    find_missing,
)
from lmcore.reproduce.jobs import Job, run_jobs
from lmcore.reproduce.measurements import (
    Kept,
    find_measurement,
    keep_measurement,
    only_here,
)
from lmcore.reproduce.plots import import_matplotlib
from lmcore.reproduce.report import write_report


def reproduce(
    only: Sequence[str] | None = None,
    seeds: int = 3,
    size: Size = "quick",
    out: str | os.PathLike[str] = "report",
    progress: bool = True,
    fresh: bool = False,
    processes: int | None = None,
) -> list[ResultRow]:
    """Returns one row per claim, and writes `results.json` and `index.html` into a folder.

    Both files are complete after each claim, so that a run that is stopped leaves the claims
    that it finished. What was measured stands in the folder's `measurements`, and is not measured
    again by a run with the same claim, size and seed, versions, sources, device and data.

    Args:
        only: systems or claims to measure; all if None.
        seeds: number of seeds, 0 to seeds - 1. With one there is no spread and no verdict.
        size: of the experiments; `tiny` gives no verdict. A claim that is not measured in this
            size, or that needs what is not here, has a row that says so.
        out: folder of the report; made if it does not exist.
        progress: whether to show a progress bar.
        fresh: whether to measure all anew.
        processes: how many measure side by side, each in one thread; one for each core if None.
            Claims about time are measured alone. 1 measures in this process.

    Raises:
        ChildProcessError: a process that measured was killed.
        FileExistsError: another process measures into the folder.
        ImportError: matplotlib, which draws the plots, or what a claim's system needs is not
            installed; the message says how to install it.
        OSError: the folder cannot be written to.
        RuntimeError: measuring failed.
        ValueError: an unknown name or size, or fewer than one seed or process.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = reproduce(
        ...         ["matching_rescue"], seeds=1, size="tiny", out=folder, progress=False
        ...     )
        >>> [(row.id, row.verdict) for row in rows]
        [('matching_rescue', 'measured')]
    """
    claims = select_claims(None if only is None else list(only))
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}: got {size!r}")
    processes = count_cores() if processes is None else processes
    for name, value in (("seeds", seeds), ("processes", processes)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1: got {value}")
    # What is absent is said now, not after the claims that can do without it.
    import_matplotlib()
    absent = {claim.id: reason for claim in claims if (reason := _find_reason(claim, size))}
    here = [claim for claim in claims if claim.id not in absent]
    for system in dict.fromkeys(claim.system for claim in here):
        import_module(f"lmcore.{system}")
    info = RunInfo(
        command=_write_command(only, seeds, size),
        seeds=tuple(range(seeds)),
        size=size,
        versions=describe_versions(),
        device=describe_device(),
        started=datetime.now(UTC).isoformat(sep=" ", timespec="seconds"),
    )
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with only_here(folder):
        conditions = {claim.id: find_conditions(claim.needs) for claim in here}
        found: dict[tuple[str, int], Kept] = {}
        if not fresh:
            for name, seed in itertools.product(conditions, range(seeds)):
                kept = find_measurement(folder, name, size, seed, conditions[name])
                if kept is not None:
                    found[name, seed] = kept
        earlier = frozenset(found)
        jobs = _make_jobs(here, seeds, size, earlier)

        def write_rows() -> list[ResultRow]:
            """The claims that are finished, in their order."""
            rows = []
            for claim in claims:
                keys = [(claim.id, seed) for seed in range(seeds)]
                if claim.id in absent:
                    rows.append(make_absent_row(claim, absent[claim.id]))
                elif found.keys() >= set(keys):
                    kept = len(earlier.intersection(keys))
                    rows.append(_make_row(claim, [found[key] for key in keys], size, kept))
            write_report(rows, info, folder)
            return rows

        rows = write_rows()
        total = len(here) * seeds
        with (
            tqdm(total=total, initial=len(found), disable=not progress, unit="run") as bar,
            closing(run_jobs(jobs, processes, lambda: _tick(bar))) as results,
        ):
            for result in results:
                name, seed = result.claim, result.job.seed
                keep_measurement(folder, name, size, seed, conditions[name], result.kept)
                found[name, seed] = result.kept
                bar.set_description(f"{name}, seed {seed}", refresh=False)
                bar.update()
                if found.keys() >= {(name, other) for other in range(seeds)}:
                    rows = write_rows()
    return rows


def _tick(bar: tqdm) -> None:
    """Shows that time passes; not in a log, which would get a line of it each time."""
    if sys.stderr is not None and sys.stderr.isatty():
        bar.refresh()


def _find_reason(claim: Claim, size: Size) -> str | None:
    """Why a claim is not run; None if it is."""
    if size not in claim.sizes:
        return "takes longer than a demo may: lmcore reproduce --full"
    return find_missing(claim.needs)


def _make_jobs(
    claims: Sequence[Claim], seeds: int, size: Size, earlier: frozenset[tuple[str, int]]
) -> list[Job]:
    """One for each group of claims and seed, without what an earlier run measured."""
    groups: dict[str, list[Claim]] = {}
    for claim in claims:
        groups.setdefault(f"group {claim.group}" if claim.group else claim.id, []).append(claim)
    jobs = []
    for group in groups.values():
        for seed in range(seeds):
            missing = tuple(claim.id for claim in group if (claim.id, seed) not in earlier)
            # There is one GPU, and what shares it would wait.
            alone = any(claim.timed or "cuda" in claim.needs for claim in group)
            if missing:
                jobs.append(Job(claims=missing, size=size, seed=seed, alone=alone))
    return jobs


def _make_row(claim: Claim, parts: Sequence[Kept], size: Size, kept: int) -> ResultRow:
    measurements: list[Measurement] = [part.measurement for part in parts]
    seconds = sum(part.seconds for part in parts)
    row = make_row(claim, measurements, range(len(parts)), seconds, size)
    return dataclasses.replace(row, kept=kept)


def _write_command(only: Sequence[str] | None, seeds: int, size: Size) -> str:
    command = ["lmcore reproduce"]
    command += [f"--only {','.join(only)}"] if only is not None else []
    command += [f"--seeds {seeds}"] if seeds != 3 else []
    command += [f"--{size}"] if size != "quick" else []
    return " ".join(command)
