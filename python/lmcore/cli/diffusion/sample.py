"""The command `lmcore diffusion sample`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore._text import count_noun
from lmcore.cli.failures import starting
from lmcore.cli.options import (
    MOST,
    Device,
    Quiet,
    SkipBadRows,
    Threads,
    decimal,
    limit_threads,
    name_of_file,
    plain_text,
    whole,
)
from lmcore.cli.terminal import say

if TYPE_CHECKING:
    from lmcore.diffusion.samples import SampleSummary
    from lmcore.diffusion.texts import SamplingConfig, TextGenerator


def sample_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            parser=name_of_file,
            help="Folder of a model and its tokenizer, or of a run of `train`.",
            show_default=False,
        ),
    ],
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            parser=name_of_file,
            help="Pairs as for `train`, whose targets may be missing. .gz is compressed, `-` is "
            "standard input.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            parser=name_of_file,
            help="Files OUT.seed<k>.jsonl with recover, reference and source; `-` is standard "
            "output, for one seed.",
            show_default=False,
        ),
    ],
    steps: Annotated[
        int | None,
        whole(1, 2**20, text="Timesteps of the chain, 20 by default; all of them with T."),
    ] = None,
    schedule: Annotated[
        str,
        typer.Option(
            metavar="adaptive|uniform|quadratic|ddim|distilled|SPEC",
            parser=plain_text,
            help="Which timesteps these are; SPEC such as adp_20, x2_10, ddim50 or 10,20 is that "
            "of the authors' code; distilled those of a distilled model, by DDIM unrounded.",
        ),
    ] = "adaptive",
    proportions: Annotated[
        str | None,
        typer.Option(
            metavar="X,X,...",
            parser=plain_text,
            help="Of adaptive: what share of the steps each section gets, from the least noise to "
            "the most; 1 in sum.",
        ),
    ] = None,
    solver: Annotated[
        str,
        typer.Option(
            metavar="ancestral|ddim|dpm_solver",
            parser=plain_text,
            help="Of the reverse process; dpm_solver is DPM-Solver++ (2M).",
        ),
    ] = "ancestral",
    eta: Annotated[
        float, decimal(0.0, 1.0, text="Of ddim: the share of noise that a step adds.")
    ] = 0.0,
    clamp: Annotated[
        bool,
        typer.Option("--clamp/--no-clamp", help="Round estimates to words at every step."),
    ] = True,
    seeds: Annotated[int, whole(1, 2**20, text="How many, each with a file.")] = 1,
    seed: Annotated[int, whole(0, 2**64 - 1, text="The first of them.")] = 0,
    batch_size: Annotated[int, whole(1, 65536, text="Sources that are answered together.")] = 64,
    length: Annotated[
        int | None,
        whole(8, 2**20, text="Positions of a row; by default those that MODEL was trained with."),
    ] = None,
    target_tokens: Annotated[
        int | None,
        whole(
            1, MOST, text="Room that a source leaves where its target is missing; half of the row."
        ),
    ] = None,
    group_references: Annotated[
        bool,
        typer.Option(
            "--group-references",
            help="Make one row, with references, of rows that follow each other with one source.",
        ),
    ] = False,
    html: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="Write the text of a few rows at each step as a page.",
        ),
    ] = None,
    chain_rows: Annotated[int, whole(1, 1000, text="Rows on the page, the first ones.")] = 3,
    data_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="auto|jsonl|tsv|csv",
            parser=plain_text,
            help="Form of the pairs; auto looks at the name.",
        ),
    ] = "auto",
    device: Device = None,
    precision: Annotated[
        str,
        typer.Option(
            metavar="auto|float32|bfloat16",
            parser=plain_text,
            help="Of the network; auto is bfloat16 on a GPU that has it.",
        ),
    ] = "auto",
    threads: Threads = None,
    skip_bad_rows: SkipBadRows = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where OUT's files ended, or anew.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Write what a model makes of each source, in a few steps from noise, once for each seed.

    Rows stand in the order of the input, and what becomes of one does not depend on the others.
    `mbr` chooses among the files, `score` rates them. A killed run goes on where it was.
    """
    solved = {"solver": solver, "eta": eta, "clamp": clamp}
    settings = {"steps": steps, "schedule": schedule, "proportions": _read_shares(proportions)}
    settings |= {"batch_size": batch_size, "length": length, "target_tokens": target_tokens}
    options: dict[str, Any] = {"form": data_format, "group_references": group_references}
    options |= {"resume": resume, "skip_bad_rows": skip_bad_rows}
    place = {"device": "auto" if device is None else device, "precision": precision}
    make = _prepare(model, solved, settings, place)
    options |= {"page": None if html is None else (html, chain_rows), "quiet": quiet}
    _sample(make, source, out, range(seed, seed + seeds), limit_threads(threads), **options)


def _read_shares(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(
        re.fullmatch(r"\s*[0-9]{1,20}(\.[0-9]{0,20})?\s*", part, re.ASCII) for part in parts
    ):
        raise ValueError(f"proportions must be numbers with commas between them: got {text!r:.60}")
    return tuple(map(float, parts))


def _prepare(
    model: str, solved: dict[str, Any], settings: dict[str, Any], place: dict[str, str]
) -> Callable[[], TextGenerator]:
    """What loads the model; settings that no model could have are refused before."""
    with starting():
        from lmcore.diffusion.sampling import Sampler
        from lmcore.diffusion.texts import SamplingConfig, load_generator

    if solved["eta"] and solved["solver"] != "ddim":
        raise ValueError(f"eta goes with the solver ddim: got {solved['solver']!r:.60}")
    sampling: SamplingConfig = SamplingConfig(sampler=Sampler(**solved), **settings)
    return lambda: load_generator(model, sampling, **place)


def _sample(
    make: Callable[[], TextGenerator],
    source: str,
    out: str,
    seeds: range,
    threads: int | None,
    *,
    page: tuple[str, int] | None,
    quiet: bool,
    **options: Any,
) -> None:
    from tqdm import tqdm

    from lmcore.diffusion.outputs import check_outputs, name_outputs, read_again
    from lmcore.diffusion.pairs import find_form
    from lmcore.diffusion.samples import sample_files
    from lmcore.training.processes import use_threads

    options["form"] = find_form(source, options["form"])
    check_outputs(name_outputs(out, seeds), source, *([page[0]] if page else []))
    with ExitStack() as stack:
        stack.enter_context(use_threads(threads))
        generator = make()
        name = None
        if page is not None:  # its rows are read once more
            source, name = stack.enter_context(read_again(source))
        begin = time.monotonic()
        bar = tqdm(unit=" sequences", disable=True if quiet else None, leave=False)
        with bar:
            done = sample_files(
                generator, source, out, seeds=seeds, progress=bar.update, name=name, **options
            )
        _say_summary(generator, done, time.monotonic() - begin)
        if page is not None:
            _write_page(generator, (source, name or source, options["form"]), seeds[0], page)


def _write_page(
    generator: TextGenerator, pairs: tuple[str, str, str], seed: int, page: tuple[str, int]
) -> None:
    from lmcore._files import write_text
    from lmcore.diffusion.chains import render_chains, trace_file

    (file, rows), (source, name, form) = page, pairs
    chains = trace_file(generator, source, rows, seed=seed, form=form)
    settings = generator.describe()
    text = render_chains(
        chains, title="From noise to text", settings=[f"Rows of {name}, seed {seed}.", settings]
    )
    write_text(file, text, [source])


def _say_summary(generator: TextGenerator, done: dict[int, SampleSummary], seconds: float) -> None:
    summaries = [*done.values()]
    # What is wrong with the input is the same for each seed; earlier starts have counted none.
    first = summaries[-1]
    most = max(summaries, key=lambda summary: summary.sampled)
    for row in first.listed_bad_rows:
        say(f"skipped {row}")
    rows, resumed = (sum(getattr(s, n) for s in summaries) for n in ("rows", "resumed_rows"))
    sampled = sum(summary.sampled for summary in summaries)
    before = f", {resumed} of them before" if resumed else ""
    speed = f", {sampled / max(seconds, 1e-9):.3g} sequences per second" if sampled else ""
    say(
        f"{rows} rows sampled with {count_noun(len(done), 'seed')}{before}, "
        f"{first.bad_rows} skipped: {len(generator.timesteps)} steps{speed}"
    )
    asked, found = generator.sampling.steps, len(generator.timesteps)
    if asked is not None and found < asked:
        say(f"{asked} steps were asked for: of {generator.sampling.schedule} {found} differ")
    if most.cut_sources or most.cut_targets:
        say(
            f"{most.cut_sources} sources and {most.cut_targets} references do not fit into "
            f"{generator.length} positions, and lost {most.cut_tokens} tokens at their end"
        )
    if most.unknown_tokens:
        say(f"{most.unknown_tokens} tokens are not in the vocabulary")
