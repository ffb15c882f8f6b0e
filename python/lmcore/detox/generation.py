"""Files of prompts to files of chains: what a model writes for each, with its continuations.

A batch is a function of the input alone, so a run that was killed goes on behind the last whole
batch and ends with the same bytes: how numbers are rounded depends on the size of a batch.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from lmcore._row_stream import RowStream
from lmcore._rows import Row, parse_row
from lmcore.detox.chain_writing import ChainWriter, WrittenChain
from lmcore.detox.data import find_form, parse_line, parse_prompt
from lmcore.training.fingerprint import fingerprint_model

Progress = Callable[[int], object]
_MADE = ("generations", "chains")


@dataclass(kw_only=True, slots=True, frozen=True)
class WritingSummary:
    """What `generate_file` did."""

    rows: int
    """Prompts that have their chains, from earlier starts as well."""
    resumed_rows: int
    """Those of earlier starts, which the counts below do not hold."""
    bad_rows: int
    listed_bad_rows: list[str]
    chains: int = 0
    """Samples that are chains."""
    toxic: int = 0
    """Of these, chains that call their prompt toxic."""
    without_continuation: int = 0
    """Chains that say there is none, as those of a student may."""
    unparsable: dict[str, int] = field(default_factory=dict)
    """Samples that are no chain, by what is missing; their generation is empty."""
    cut: int = 0
    """Samples that ended for want of room."""
    seconds_per_chain: float | None = None
    """Of the first batch."""
    latency: float | None = None
    """How many times longer that is than a plain continuation of 20 tokens by the same model."""


def generate_file(
    writer: ChainWriter,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    seed: int = 0,
    form: str = "auto",
    field: str | None = None,
    resume: bool = True,
    skip_bad_rows: bool = False,
    progress: Progress | None = None,
) -> WritingSummary:
    r"""Writes chains for each prompt of a file, in the order of the input.

    A row is what it was, with `generations`, the continuation of each sample (empty where there is
    none), and `chains`: of each sample `chain` (as it was written), `toxic`, `masked` and
    `rephrased`, null where they are not said, and `problem` where it is no chain.

    Source: section 5 of the specification.

    Args:
        writer: a model and its settings.
        source: prompts, as for `lmcore.detox.data`; `.gz` is decompressed, `-` is standard input.
        target: where the rows go, as JSONL; `-` is standard output.
        seed: of the noise, below 2**64, which belongs to seed, line and sample.
        form: of the source, one of `lmcore.detox.data.FORMS`.
        field: the key of the text; `text` or `prompt` if None.
        resume: go on where an earlier run ended; otherwise start anew.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        progress: called with the number of prompts of each batch that is done.

    Raises:
        FileExistsError: another run's rows stand there, or one is writing.
        OSError: a file cannot be read or written.
        ValueError: a row has no text, too long a one, or was continued before; the text names
            file and line.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lmcore.detox.chain_writing import ChainSampling
        >>> from lmcore.detox.models import make_model
        >>> from lmcore.detox.recipes import ScratchConfig
        >>> from lmcore.training.models import make_tokenizer
        >>> tokenizer = make_tokenizer(["# Text: hello"], 300)
        >>> model = make_model(ScratchConfig(hidden_size=8, heads=1), tokenizer)
        >>> writer = ChainWriter(model, tokenizer, ChainSampling(samples=2, max_new_tokens=4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     source, target = Path(folder, "in.txt"), Path(folder, "out.jsonl")
        ...     _ = source.write_text("hello\n")
        ...     generate_file(writer, source, target).unparsable
        {'no_verdict': 2}
    """
    form = find_form(source, form)
    recipe = {**_describe(writer), "format": form, "field": field, "seed": seed}
    counts = _Counts()
    with RowStream(
        source, target, recipe, resume=resume, skip_bad_rows=skip_bad_rows, by_block=True,
        parse=_make_parser(writer, form, field),
    ) as stream:  # fmt: skip
        block: list[Row] = []

        def finish() -> None:
            prompts = [parse_prompt(row.value, form, field=field).text for row in block]
            started = time.perf_counter()
            found = writer.write(prompts, [row.line for row in block], seed) if block else []
            counts.time(writer, prompts, time.perf_counter() - started, seed)
            for row, chains in zip(block, found, strict=True):
                counts.add(chains)
                stream.write(row, {**row.value, **_make_row(chains)})
            stream.release()
            if progress is not None and block:
                progress(len(block))
            block.clear()

        for row in stream:
            block.append(row)
            if len(block) == max(1, writer.sampling.batch_size // writer.sampling.samples):
                finish()
        finish()
    return WritingSummary(
        rows=stream.rows, resumed_rows=stream.resumed_rows, bad_rows=stream.bad_rows,
        listed_bad_rows=list(stream.listed_bad_rows), **counts.read(),
    )  # fmt: skip


class _Counts:
    """The counts of a summary."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self.unparsable: Counter[str] = Counter()
        self.times: dict[str, float] = {}

    def add(self, chains: Sequence[WrittenChain]) -> None:
        for one in chains:
            self.found["cut"] += one.is_cut
            if one.chain is None:
                self.unparsable[one.problem or ""] += 1
                continue
            self.found["chains"] += 1
            self.found["toxic"] += one.chain.toxic
            self.found["without_continuation"] += one.chain.continuation is None

    def time(self, writer: ChainWriter, prompts: Sequence[str], seconds: float, seed: int) -> None:
        """Compares the first batch with plain continuations of the same prompts."""
        if self.times or not prompts:
            return
        samples = len(prompts) * writer.sampling.samples
        plain = writer.time_plain(prompts, seed)
        self.times = {
            "seconds_per_chain": round(seconds / samples, 6), "latency": round(seconds / plain, 2),
        }  # fmt: skip

    def read(self) -> dict[str, Any]:
        return {**self.found, "unparsable": dict(self.unparsable), **self.times}


def _describe(writer: ChainWriter) -> dict[str, Any]:
    """All that chains depend on besides the input and the seed."""
    weight = next(iter(writer.model.parameters()))
    return {
        "model": fingerprint_model(writer.model, writer.tokenizer), **asdict(writer.sampling),
        "precision": str(weight.dtype).removeprefix("torch."), "device": str(weight.device),
        "threads": torch.get_num_threads(),
    }  # fmt: skip


def _make_parser(
    writer: ChainWriter, form: str, field: str | None
) -> Callable[[bytes], dict[str, Any]]:
    """What makes a row of a line, and refuses one that cannot be continued."""
    parse = parse_line if form == "lines" else parse_row

    def parse_text(content: bytes) -> dict[str, Any]:
        value = parse(content)
        writer.count_tokens(parse_prompt(value, form, field=field).text)
        taken = next((key for key in _MADE if key in value), None)
        if taken is not None:
            raise ValueError(f"has {taken} already")
        return value

    return parse_text


def _make_row(chains: Sequence[WrittenChain]) -> dict[str, Any]:
    rows, texts = [], []
    for one in chains:
        chain = one.chain
        texts.append(((chain and chain.continuation) or "").strip())
        row = {
            "chain": one.text, "toxic": chain and chain.toxic, "masked": chain and chain.masked,
            "rephrased": chain and chain.rephrased,
        }  # fmt: skip
        rows.append(row if one.problem is None else {**row, "problem": one.problem})
    return {"generations": texts, "chains": rows}
