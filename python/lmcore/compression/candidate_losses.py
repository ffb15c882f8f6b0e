"""Candidates held against a validation text: the loss right after the cut.

Each candidate's first round is cut into a temporary folder, which is removed again; what it reads
is what `lmcore.compression.calibration` makes of the text, for any family. Losses can be kept in a
file, by a digest of all that they depend on: a search that was killed goes on with it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmcore._extras import optional_imports
from lmcore._files import find_output, write_text
from lmcore._json import read_json
from lmcore.compression.calibration import digest_text
from lmcore.compression.importance import Calibration, make_batches, read_rows
from lmcore.compression.model_folders import prune_folder
from lmcore.compression.plan import Plan
from lmcore.compression.plan_files import dump_plan
from lmcore.compression.scores_files import digest_weights
from lmcore.compression.search import Candidate
from lmcore.compression.searched_stages import add_candidate_stages
from lmcore.cost import read_shape

_VERSION = 1


def measure_loss(folder: str | os.PathLike[str], valid: Calibration) -> float:
    """Returns the loss of a model on a text, in nats per token that it should say.

    Args:
        folder: of the model, with its tokenizer.
        valid: the text, and how much of it is read.

    Raises:
        ImportError: torch or transformers is not installed.
        OSError: a file cannot be read.
        ValueError: the model cannot be loaded, a row cannot be used, no token has a label, or the
            loss is no finite number.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     measure_loss(folder, Calibration(text="pyproject.toml"))
        Traceback (most recent call last):
        ValueError: ...
    """
    with optional_imports():
        import torch

        from lmcore.compression.probes import sum_losses
        from lmcore.training.processes import find_device
    from lmcore.compression.loading import load_model

    device = find_device(valid.device)
    rows, kind, settings = read_rows(folder, valid)
    model, shape = load_model(folder, device=str(device)), read_shape(folder)
    total, labels = 0.0, 0
    with torch.inference_mode():
        for batch in make_batches(rows, kind, valid.batch_size, str(device), **settings):
            total += float(sum_losses(model, batch, shape))
            labels += int((batch.labels != -100).sum())
    if not labels:
        raise ValueError(f"{os.fspath(valid.text)}: too short: no token of it has a label")
    if not math.isfinite(total):
        raise ValueError(f"{os.fspath(folder)}: the loss must be a finite number: got {total}")
    return total / labels


def score_candidates(
    folder: str | os.PathLike[str],
    plan: Plan,
    candidates: Sequence[Candidate],
    valid: Calibration,
    *,
    file: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], object] | None = None,
    **choice: Any,
) -> list[Candidate]:
    """Returns candidates with their losses right after the first round's cut, the least first.

    Args:
        folder: of the original, with its tokenizer.
        plan: that was searched. What its stages leave is not recovered here: where a model was
            trained since, plan from that one.
        candidates: at least one.
        valid: a validation text.
        file: where losses are kept, read where it is there; they are not kept if None.
        progress: called with how many are scored and how many there are.
        choice: as for `lmcore.compression.searched_stages.add_candidate_stages`.

    Raises:
        ImportError: torch or transformers is not installed.
        OSError: a file cannot be read or written.
        ValueError: a row cannot be used, the file holds something else, or a loss is no finite
            number.

    Example:
        >>> from lmcore.compression.recipes import OPENBA_V1
        >>> plan = Plan(model_type="openba", shape=OPENBA_V1)
        >>> score_candidates("model", plan, [], Calibration(text="pyproject.toml"))
        []
    """
    if not candidates:
        return []
    known = _read_losses(file)
    about = {"model": digest_weights(folder), "text": digest_text(valid.text),
             "tokens": valid.tokens}  # fmt: skip
    scored = []
    for number, candidate in enumerate(candidates, 1):
        made = add_candidate_stages(plan, replace(candidate, rounds=candidate.rounds[:1]), **choice)
        stages = [replace(stage, name="") for stage in made.stages]
        content = {**about, "plan": dump_plan(replace(made, stages=tuple(stages)))}
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        if key not in known:
            known[key] = _measure_cut(folder, made, valid)
            if file is not None:
                write_text(file, json.dumps({"version": _VERSION, "losses": known}, indent=1))
        scored.append(replace(candidate, loss=known[key]))
        if progress is not None:
            progress(number, len(candidates))
    # Of equal losses the better rank comes first.
    return sorted(scored, key=lambda one: one.loss if one.loss is not None else math.inf)


def _measure_cut(folder: str | os.PathLike[str], plan: Plan, valid: Calibration) -> float:
    with tempfile.TemporaryDirectory(prefix="lmcore-") as place:
        target = Path(place, "candidate")
        try:
            prune_folder(folder, target, plan)
            return measure_loss(target, valid)
        except ValueError as error:  # nobody knows the folder's name, which is gone soon
            text = str(error).replace(os.fspath(target), f"a candidate of {os.fspath(folder)}")
            raise ValueError(text) from error


def _read_losses(file: str | os.PathLike[str] | None) -> dict[str, float]:
    if file is None:
        return {}
    if not os.path.lexists(file):
        find_output(file)
        return {}
    content = read_json(file, "losses of candidates")
    losses = content.get("losses") if isinstance(content, dict) else None
    if (
        not isinstance(losses, dict)
        or type(content.get("version")) is not int
        or content["version"] != _VERSION
        or not all(isinstance(loss, float) and len(key) == 64 for key, loss in losses.items())
    ):
        raise ValueError(f"{os.fspath(file)}: not losses of candidates: name another file")
    return {**losses}
