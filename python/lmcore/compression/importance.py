"""How much each part of a model matters: its layers, channels, heads and inner units.

| method | scores | asks |
| --- | --- | --- |
| `magnitude` | channels, heads, inner units | the weights alone |
| `activation` | channels, heads, inner units | the model, while it reads calibration text |
| `taylor` | channels, heads, inner units | the loss of calibration text: its gradient |
| `block_influence` | layers | the model, while it reads calibration text |

Source: OpenBA-V2 (arXiv 2405.05957), section 3, draws at random; Michel et al. 2019 and ShortGPT
(arXiv 2403.03853) are what it can be compared with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lmcore._extras import optional_imports
from lmcore.compression.calibration import (
    LENGTH,
    CalibrationBatch,
    CalibrationRow,
    Reader,
    digest_text,
    make_batch,
    read_calibration,
)
from lmcore.compression.choosing import LEARNED, SCORED
from lmcore.compression.families import find_family
from lmcore.compression.magnitudes import score_magnitudes
from lmcore.compression.pieces.folder import load_tokenizer
from lmcore.compression.plan import Plan
from lmcore.compression.planning import start_plan
from lmcore.compression.scores_files import (
    StoredScores,
    check_scores,
    digest_weights,
    read_scores,
    write_scores,
)

TOKENS = 131_072
"""Of calibration text that are read where nothing else is asked for."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Calibration:
    """What a model reads while its parts are scored.

    Raises:
        ValueError: a number is below 1.

    Example:
        >>> Calibration(text="wiki.txt").batch_size
        8
    """

    text: str | os.PathLike[str]
    """JSONL with `text`, or with `src` and `trg`; or lines of text."""
    tokens: int = TOKENS
    """How many are read at most."""
    batch_size: int = 8
    """Rows that are computed at once; it makes no difference but for rounding."""
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1: got {getattr(self, name)}")


def check_method(method: str) -> None:
    """Checks that a method asks the model.

    Args:
        method: one of `lmcore.compression.choosing.SCORED`.

    Raises:
        ValueError: there is no such method.

    Example:
        >>> check_method("taylor")
    """
    if method not in SCORED:
        raise ValueError(f"method must be one of {', '.join(SCORED)}: got {method!r:.60}")


def score_model(
    folder: str | os.PathLike[str],
    method: str,
    calibration: Calibration | None = None,
    *,
    plan: Plan | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> StoredScores:
    """Returns how much each part of a model matters.

    Args:
        folder: of the model, with its tokenizer where text is read.
        method: one of `lmcore.compression.choosing.SCORED`.
        calibration: what the model reads; `magnitude` reads nothing.
        plan: of the same model, whose shape is taken; read from the folder if None.
        progress: called with what is done and all of it: tokens, or bytes of weights.

    Raises:
        ImportError: torch or transformers is not installed, and the method needs it.
        OSError: a file cannot be read.
        ValueError: there is no such method, or it lacks a text, a row cannot be used, or what the
            model computes is no finite number.

    Example:
        >>> import tempfile
        >>> from transformers import T5Config, T5ForConditionalGeneration
        >>> config = T5Config(d_model=8, d_ff=6, d_kv=2, num_heads=2, num_layers=1, vocab_size=9)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     T5ForConditionalGeneration(config).save_pretrained(folder)
        ...     score_model(folder, "magnitude").scores.hidden.shape
        (8,)
    """
    check_method(method)
    plan = start_plan(folder) if plan is None else plan
    if method == LEARNED:
        raise ValueError("learned scores come from `lmcore compression learn-masks`: name its file")
    if method == "magnitude":
        scores = score_magnitudes(folder, plan, progress=progress)
        return StoredScores(scores=scores, method=method, model=digest_weights(folder))
    if calibration is None:
        raise ValueError(f"{method} needs a calibration text")
    return _probe(folder, method, calibration, plan, progress)


def find_scores(
    folder: str | os.PathLike[str],
    method: str,
    calibration: Calibration | None,
    file: str | os.PathLike[str] | None,
    *,
    plan: Plan | None = None,
    most_tokens: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[StoredScores, bool]:
    """Returns the scores of a file, or makes them and the file where it is not there.

    Args:
        folder: of the model.
        method: one of `lmcore.compression.choosing.SCORED`.
        calibration: what the model reads; a file that was made needs it no more.
        file: of scores; they are not kept if None.
        plan: of the same model, whose shape is taken.
        most_tokens: that the file must have been made with; any number if None.
        progress: as for `score_model`.

    Returns:
        The scores, and whether they were read.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: the file holds scores of another model, method or text, or they cannot be made.

    Example:
        >>> import tempfile
        >>> from transformers import T5Config, T5ForConditionalGeneration
        >>> config = T5Config(d_model=8, d_ff=6, d_kv=2, num_heads=2, num_layers=1, vocab_size=9)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     T5ForConditionalGeneration(config).save_pretrained(folder)
        ...     file = f"{folder}/scores"
        ...     [find_scores(folder, "magnitude", None, file)[1] for _ in range(2)]
        [False, True]
    """
    from lmcore._files import find_output

    check_method(method)
    plan = start_plan(folder) if plan is None else plan
    if file is None or not os.path.lexists(file):
        if file is not None:
            find_output(file)
        made = score_model(folder, method, calibration, plan=plan, progress=progress)
        if file is not None:
            write_scores(file, made)
        return made, False
    stored = read_scores(file)
    try:
        check_scores(stored, digest_weights(folder), plan.shape)
        if stored.method != method:
            raise ValueError(f"the scores were made by {stored.method}: {method} is asked for")
        if calibration is not None and stored.text != digest_text(calibration.text):
            raise ValueError("the scores were made with another text")
        if most_tokens is not None and stored.most_tokens != most_tokens:
            raise ValueError(
                f"the scores were made with at most {stored.most_tokens} tokens: {most_tokens} are "
                "asked for"
            )
    except ValueError as error:
        raise ValueError(f"{os.fspath(file)}: {error}: name another file") from None
    return stored, True


def _probe(
    folder: str | os.PathLike[str],
    method: str,
    calibration: Calibration,
    plan: Plan,
    progress: Callable[[int, int], object] | None,
) -> StoredScores:
    with optional_imports():
        from transformers import AutoModel

        from lmcore.compression import probes
        from lmcore.training.processes import find_device
    from lmcore.compression.loading import load_model

    digest, device = digest_text(calibration.text), find_device(calibration.device)
    with_head = method == "taylor"
    rows, kind, settings = read_rows(folder, calibration, with_labels=with_head)
    tokens = sum(row.tokens for row in rows)
    model = load_model(folder, None if with_head else AutoModel, device=str(device))
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, tokens)

    score = {"activation": probes.score_activations, "taylor": probes.score_gradients,
             "block_influence": probes.score_influence}[method]  # fmt: skip
    batches = make_batches(rows, kind, calibration.batch_size, str(device), **settings)
    try:
        scores = score(model, batches, find_family(plan.model_type), plan.shape, tell)
    except ValueError as error:
        raise ValueError(f"{os.fspath(folder)}: {error}") from None
    return StoredScores(
        scores=scores, method=method, model=digest_weights(folder), text=digest, tokens=tokens,
        most_tokens=calibration.tokens,
    )  # fmt: skip


def read_rows(
    folder: str | os.PathLike[str], calibration: Calibration, *, with_labels: bool = True
) -> tuple[list[CalibrationRow], str, dict[str, int]]:
    """Returns what a model reads of a text: rows, its kind, and the ids for `make_batches`.

    Args:
        folder: of the model, with its tokenizer.
        calibration: what it reads.
        with_labels: whether an encoder alone is asked for tokens that are masked.

    Raises:
        ImportError: transformers is not installed.
        OSError: a file cannot be read.
        ValueError: there is no tokenizer, the text holds nothing, or a row cannot be used.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_rows(folder, Calibration(text="pyproject.toml"))
        Traceback (most recent call last):
        ValueError: ...
    """
    from lmcore.compression.loading import find_kind
    from lmcore.compression.vocabulary_tensors import load_config

    config = load_config(folder)
    kind = find_kind(config)
    tokenizer = _load_tokenizer(folder, config.model_type)
    reader = _make_reader(kind, config, tokenizer)
    rows = read_calibration(calibration.text, reader, calibration.tokens)
    settings = {"pad": _take(tokenizer.pad_token_id, config.pad_token_id)}
    settings["start"] = _take(getattr(config, "decoder_start_token_id", None), settings["pad"])
    if with_labels and kind == "encoder":
        if tokenizer.mask_token_id is None:
            raise ValueError(f"{os.fspath(folder)}: its tokenizer must have a token that masks")
        settings["mask"] = tokenizer.mask_token_id
    return rows, kind, settings


def make_batches(
    rows: Sequence[CalibrationRow], kind: str, batch_size: int, device: str = "cpu", **ids: Any
) -> Iterator[CalibrationBatch]:
    """Yields rows in batches, in their order.

    Args:
        rows: any number.
        kind: of the model, as for `lmcore.compression.calibration.Reader`.
        batch_size: at least 1.
        device: where tensors shall be.
        ids: as for `make_batch`.

    Example:
        >>> rows = [CalibrationRow((), (3, 4))] * 3
        >>> [len(batch.labels) for batch in make_batches(rows, "decoder", 2)]
        [2, 1]
    """
    for start in range(0, len(rows), batch_size):
        batch = make_batch(rows[start : start + batch_size], kind, number=start, **ids)
        inputs = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
        shown = {name: mask.to(device) for name, mask in batch.shown.items()}
        yield CalibrationBatch(inputs=inputs, shown=shown, labels=batch.labels, tokens=batch.tokens)


def _make_reader(kind: str, config: Any, tokenizer: Any) -> Reader:
    denoisers = None
    if config.model_type == "openba":
        from lmcore.openba.models import find_denoisers, find_ids

        denoisers = (find_denoisers(tokenizer), find_ids(tokenizer))
        most = None  # positions are rotations, of any number
    else:
        most = getattr(config, "max_position_embeddings", None)
    length = LENGTH if most is None else min(LENGTH, most)
    return Reader(
        kind=kind, tokenizer=tokenizer, encode=tokenizer, length=length, most_tokens=most,
        vocabulary_size=config.vocab_size, denoisers=denoisers,
    )  # fmt: skip


def _load_tokenizer(folder: str | os.PathLike[str], model_type: str) -> Any:
    if model_type == "openba":  # its denoisers ask for what no other class has
        from lmcore.openba.tokenization_openba import load_tokenizer as load_openba_tokenizer

        return load_openba_tokenizer(folder)
    return load_tokenizer(folder)


def _take(*ids: Any) -> int:
    """The first that is an id; which one fills up makes no difference."""
    return next((found for found in ids if isinstance(found, int)), 0)
