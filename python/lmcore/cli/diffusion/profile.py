"""The command `lmcore diffusion profile`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import (
    MOST,
    AsJson,
    Device,
    Quiet,
    SkipBadRows,
    Threads,
    limit_threads,
    name_of_file,
    plain_text,
    whole,
)
from lmcore.cli.terminal import say, show, show_json

if TYPE_CHECKING:
    from lmcore.diffusion.pairs import Pair
    from lmcore.diffusion.profile import Profile


def profile_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            parser=name_of_file,
            help="Folder of a model with its tokenizer, or of a training run.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            parser=name_of_file,
            help="Pairs (.jsonl, .tsv, .csv, also .gz), or a folder with valid.jsonl or the like.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE.json",
            parser=name_of_file,
            help="Where the profile goes.",
            show_default=False,
        ),
    ],
    plot: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="A figure, .svg or .png; needs the extra `report`.",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.json",
            parser=name_of_file,
            help="Another profile for the figure, such as one without penalty; several times.",
        ),
    ] = None,
    points: Annotated[
        int | None,
        whole(1, 2**20, text="Timesteps that are measured; 50 by default, T for all of them."),
    ] = None,
    pairs: Annotated[int, whole(1, MOST, text="The first so many of DATA.")] = 64,
    steps: Annotated[int, whole(1, 2**20, text="Of the short chain, by Adaptive Decay.")] = 20,
    full: Annotated[
        bool,
        typer.Option("--full/--no-full", help="Whether the chain of T steps is made, too."),
    ] = True,
    sections: Annotated[
        int, whole(1, 2**20, text="For which proportions of the steps are derived.")
    ] = 3,
    by: Annotated[
        str,
        typer.Option(
            metavar="distance|travel|gap",
            parser=plain_text,
            help="By what: distance to the neighbour by noise, way of the estimates in the "
            "longest chain, or its error above that of noised texts.",
        ),
    ] = "distance",
    seed: Annotated[int, whole(0, 2**64 - 1, text="Of the noise.")] = 0,
    length: Annotated[
        int | None,
        whole(8, 2**20, text="Positions of a row; by default those the model was trained with."),
    ] = None,
    batch_size: Annotated[int, whole(1, 2**20, text="Rows at once.")] = 64,
    data_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="auto|jsonl|tsv|csv",
            parser=plain_text,
            help="Form of the pairs; auto looks at their name.",
        ),
    ] = "auto",
    device: Device = None,
    threads: Threads = None,
    skip_bad_rows: SkipBadRows = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model at each noise: errors for noised texts and in its own chains.

    The gap between the two is what Distance Penalty closes; where estimates differ from timestep
    to timestep is where Adaptive Decay Sampling spends its steps.
    """
    others = _check(out, plot, [model, *(against or [])], by, data)
    reading = {"form": data_format, "skip_bad_rows": skip_bad_rows}
    measuring = {"points": points, "seed": seed, "batch_size": batch_size}
    place = ("auto" if device is None else device, limit_threads(threads), quiet)
    chains = (steps, full, sections)
    rows = _read(data, pairs, reading)
    found = _measure(model, rows, length, chains, place, measuring, others)
    _write(found, out, plot, others, [data, *(against or [])])
    _show(found, sections, by, as_json=as_json)


def _check(
    out: str, plot: str | None, names: Sequence[str], by: str, data: str
) -> dict[str, Profile | None]:
    """What a figure shows, by name: the model first, then the other profiles.

    A name that is wrong costs no measuring.
    """
    with starting():
        from typing import get_args

        from lmcore._files import find_output
        from lmcore._manifest import find_model
        from lmcore.diffusion.profile import read_profile
        from lmcore.diffusion.profile_plots import MOST, find_plot_form
        from lmcore.diffusion.proportions import By

    against = names[1:]
    if by not in get_args(By):
        raise ValueError(f"--by must be one of {', '.join(get_args(By))}: got {by!r:.60}")
    if against and plot is None:
        raise ValueError("--against goes with --plot")
    for place, name in enumerate(against):
        if name in against[:place]:
            raise ValueError(f"{name}: the profile is named twice")
    if len(names) > MOST:
        raise ValueError(f"--against may be given {MOST - 1} times: got {len(against)}")
    folders = (Path(names[0]), find_model(names[0]))
    files = [file for f in folders if f.is_dir() for file in f.iterdir()]
    for name in (out, *([] if plot is None else [plot])):
        find_output(name, [data, *against, *files])
    if plot is not None:
        find_plot_form(plot)
        if Path(plot) == Path(out):
            raise ValueError(f"{plot}: the profile and the figure must be two files")
    short = [Path(name).name for name in names]
    shown = short if len({*short, ""}) > len(names) else names
    return dict(zip(shown, [None, *map(read_profile, against)], strict=True))


def _read(data: str, count: int, reading: dict[str, Any]) -> list[Pair]:
    """The first pairs of a file, or of the validation file of a folder."""
    with starting():
        from itertools import islice

        from lmcore.diffusion.pairs import PairReader, find_split

    file = find_split(data, "valid") if Path(data).is_dir() else data
    if file is None:
        raise FileNotFoundError(2, "holds no valid.jsonl, valid.tsv or valid.csv", data)
    reader = PairReader(file, **reading)
    found = list(islice(reader, count))
    for row in reader.listed_bad_rows:
        say(f"skipped {row}")
    return found


def _measure(
    name: str,
    pairs: list[Pair],
    length: int | None,
    chains: tuple[int, bool, int],
    place: tuple[str, int | None, bool],
    options: dict[str, Any],
    shown: dict[str, Profile | None],
) -> Profile:
    with starting():
        from tqdm import tqdm

        from lmcore.diffusion.profile_plots import check_alike
        from lmcore.diffusion.profiling import load_rows, make_profile, plan_profile
        from lmcore.training.processes import use_threads

    (steps, full, sections), (device, threads, quiet) = chains, place
    model, rows = load_rows(name, pairs, length=length, device=device)
    total = model.config.diffusion_steps
    if sections > total:
        raise ValueError(f"--sections must be at most the {total} timesteps: got {sections}")
    kept = {steps, *([total] if full else [])}
    process = (total, model.config.noise_schedule)
    check_alike({name: process if p is None else p.process for name, p in shown.items()})
    work = len(rows) * plan_profile(total, points=options["points"], chains=kept).passes
    bar = tqdm(total=work, unit=" rows", disable=True if quiet else None, leave=False)
    with use_threads(threads), bar:
        return make_profile(model, rows, chains=kept, progress=bar.update, **options)


def _write(
    found: Profile,
    out: str,
    plot: str | None,
    shown: dict[str, Profile | None],
    inputs: Sequence[str],
) -> None:
    from lmcore.diffusion.profile import write_profile
    from lmcore.diffusion.profile_plots import plot_profiles

    write_profile(found, out, inputs)
    if plot is not None:
        profiles = {name: found if p is None else p for name, p in shown.items()}
        plot_profiles(profiles, plot, [*inputs, out])


def _show(found: Profile, sections: int, by: str, *, as_json: bool) -> None:
    from lmcore._tables import format_table
    from lmcore.diffusion.proportions import find_proportions, summarize_sections

    shares = find_proportions(found, sections, by)  # type: ignore[arg-type]
    rows = summarize_sections(found, sections)
    if as_json:
        show_json(
            {"by": by, "proportions": shares, "sections": summarize_sections(found, sections)}
        )
        return
    rows = summarize_sections(found, sections)
    head = ["timesteps", *list(rows[0])[2:], f"share by {by}"]
    lines = [
        (
            f"{row['first']}-{row['last']}",
            *("-" if value is None else f"{value:.4f}" for value in list(row.values())[2:]),
            f"{share:.4f}",
        )
        for row, share in zip(rows, shares, strict=True)
    ]
    show("\n".join(format_table(lines, head)))
