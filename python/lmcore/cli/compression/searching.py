"""Sizes that a target asks for, as `lmcore compression plan` searches them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmcore.cli.failures import starting
from lmcore.cli.terminal import say, show, show_json

if TYPE_CHECKING:
    from lmcore.compression import Candidate, Conditions, Plan, Sizes, Target

_CONDITIONS = {"dtype": "dtype", "rows": "batch_size", "source_tokens": "source_tokens",
               "target_tokens": "target_tokens", "device": "device"}  # fmt: skip


def check_searching(options: dict[str, Any]) -> Any:
    """Returns the target and its conditions, or None where sizes are given in its place.

    Args:
        options: of the search, by name; what was not given is None or empty.

    Raises:
        ValueError: what is given does not go together, or is no target.
    """
    with starting():
        from lmcore.compression.targets import Conditions, parse_target

    targets = options["targets"]
    if not targets:
        named = [name for name, value in options.items() if value not in (None, False, [])]
        if named:
            name = named[0].replace("as_json", "json").replace("_", "-")
            raise ValueError(f"--{name} is for --target: got no target")
        return None
    if len(targets) > 1:
        raise ValueError(f"--target: expected one target, got {len(targets)}")
    for name in ("losses", "valid_tokens"):
        if options[name] is not None and options["valid"] is None:
            raise ValueError(f"--{name.replace('_', '-')} is for --valid: got no such text")
    if options["device"] is not None:
        if options["valid"] is None and not targets[0].startswith("ms_per_token="):
            raise ValueError("--device is for ms_per_token and --valid: got neither")
        with starting():
            from lmcore.training.processes import find_device
        find_device(options["device"])
    try:
        target = parse_target(targets[0])
    except ValueError as error:
        raise ValueError(f"--target: {error}") from None
    given = {name: options[option] for option, name in _CONDITIONS.items()}
    return target, Conditions(**{name: value for name, value in given.items() if value is not None})


def parse_sizes(option: str, texts: Sequence[str] | None) -> dict[str, int]:
    """Returns sizes by the names of dimensions.

    Args:
        option: for errors.
        texts: `NAME=N` each.

    Raises:
        ValueError: a text is no such thing, or a name comes twice.
    """
    found: dict[str, int] = {}
    for text in texts or ():
        name, _, digits = text.partition("=")
        name = name.replace("-", "_")
        if not re.fullmatch("[0-9]{1,10}", digits):
            raise ValueError(f"{option} must be NAME=N such as hidden=64: got {text!r:.60}")
        if name in found:
            raise ValueError(f"{option} names {name} twice")
        found[name] = int(digits)
    return found


@dataclass(kw_only=True, slots=True, frozen=True)
class Search:
    """What a search has found, and what it was asked for."""

    model: str
    candidates: list[Candidate]
    options: dict[str, Any]
    times: str | None = None
    """Where times were measured."""


def search_sizes(
    model: str,
    plan: Plan,
    asked: tuple[Target, Conditions],
    fixed: Sizes,
    options: dict[str, Any],
) -> Search:
    """Returns the sizes that come down to a target.

    Args:
        model: configuration or folder of the model.
        plan: to start at.
        asked: the target and its conditions.
        fixed: sizes that are given.
        options: of the search, by name.

    Raises:
        OSError: a file cannot be read.
        ValueError: no sizes come down to the target.
    """
    with starting():
        from lmcore.compression.search import search

    target, conditions = asked
    told = {
        "fixed": fixed,
        "divisors": parse_sizes("--divisor", options["divisor"]),
        "least": parse_sizes("--least", options["least"]),
        "candidates": options["candidates"] or 10,
        "rounds": options["rounds"],
    }
    if target.kind != "ms_per_token":
        found = search(plan, target, conditions=conditions, **told)
        return Search(model=model, candidates=found, options=options)
    with starting():
        from lmcore.compression.latency_models import open_stopwatch, search_times
    with _progress("round", options["quiet"]) as bar:
        watch = open_stopwatch(model, plan, conditions, bar.update)
        found = search_times(model, plan, target, watch=watch, **told)
    return Search(model=model, candidates=found, options=options, times=watch.describe())


def add_best_stages(plan: Plan, search: Search, choice: dict[str, Any]) -> Plan:
    """Returns the plan with the stages of the best sizes, and prints the candidates.

    Args:
        plan: to add to.
        search: what was found.
        choice: of what is kept: `scores`, `method`, `seed`, `layout` and `name`.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: the validation text cannot be used.
    """
    with starting():
        from lmcore.compression.searched_stages import add_candidate_stages

    found = search.candidates
    if search.options["valid"] is not None:
        found = _score(search, plan, choice)
    made = add_candidate_stages(plan, found[0], **choice)
    if search.options["as_json"]:
        show_json([_dump(one) for one in found], indent=2)
    else:
        show("\n".join(_format(found)))
    if search.times is not None:
        say(search.times)
    rounds = len(made.stages) - len(plan.stages)
    if rounds > 1:
        say(
            f"{rounds} rounds: more than half of the parameters would go at once; prune and train "
            "stage by stage"
        )
    return made


def _score(search: Search, plan: Plan, choice: dict[str, Any]) -> list[Candidate]:
    with starting():
        from lmcore.compression.candidate_losses import score_candidates
        from lmcore.compression.importance import TOKENS, Calibration

    options = search.options
    valid = Calibration(
        text=options["valid"],
        tokens=options["valid_tokens"] or TOKENS,
        device=options["device"] or "auto",
    )
    with _progress("candidate", options["quiet"]) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return score_candidates(
            search.model, plan, search.candidates, valid, file=options["losses"], progress=tell,
            **choice,
        )  # fmt: skip


@contextmanager
def _progress(unit: str, quiet: bool) -> Iterator[Any]:
    from tqdm import tqdm

    with tqdm(unit=unit, disable=True if quiet else None, leave=False) as bar:
        yield bar


def _dump(candidate: Candidate) -> dict[str, Any]:
    shape = candidate.shape
    return {
        "encoder_layers": shape.encoder_layers,
        "decoder_layers": shape.decoder_layers,
        "hidden": shape.hidden_size,
        "heads": shape.heads,
        "ffn": shape.inner_size,
        "vocabulary": shape.vocabulary_size,
        "parameters": candidate.parameters,
        "memory_bytes": candidate.memory_bytes,
        "spread": candidate.spread,
        "rounds": len(candidate.rounds),
        "ms_per_token": candidate.ms_per_token,
        "loss": candidate.loss,
    }


def _format(candidates: list[Candidate]) -> list[str]:
    from lmcore._tables import format_table

    head = ["", "encoder", "decoder", "hidden", "heads", "inner", "vocabulary", "parameters"]
    head += ["MB", "spread", "rounds"]
    is_timed = candidates[0].ms_per_token is not None
    is_scored = candidates[0].loss is not None
    rows = []
    for number, one in enumerate(candidates, 1):
        shape = one.shape
        row = ["best" if number == 1 else str(number)]
        row += [str(shape.encoder_layers), str(shape.decoder_layers), str(shape.hidden_size)]
        row += [str(shape.heads), f"{shape.inner_size:,}", f"{shape.vocabulary_size:,}"]
        row += [f"{one.parameters:,}", f"{one.memory_bytes / 1e6:,.1f}", f"{one.spread:.3f}"]
        row += [str(len(one.rounds))]
        row += [f"{one.ms_per_token:.3f}"] if is_timed else []
        row += [f"{one.loss:.4f}"] if is_scored else []
        rows.append(row)
    return format_table(
        rows, [*head, *(["ms/token"] if is_timed else []), *(["loss"] if is_scored else [])]
    )
