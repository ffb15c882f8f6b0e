"""Files of continuations to files of chains, and files of chains that are looked at."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field

from lmcore._row_stream import RowStream
from lmcore._rows import Progress, RowReader
from lmcore.detox.chain_rows import find_problem, read_chain_row
from lmcore.detox.chains import GRAMMARS, Grammar
from lmcore.detox.selection import make_training_row


@dataclass(kw_only=True, slots=True, frozen=True)
class ChainSummary:
    """What became of rows, or what they are."""

    rows: int
    """Rows that were read, from earlier starts as well."""
    resumed_rows: int = 0
    """Those of earlier starts, which the counts below do not hold."""
    bad_rows: int = 0
    listed_bad_rows: list[str] = field(default_factory=list)
    toxic: int = 0
    """Chains of toxic prompts."""
    non_toxic: int = 0
    """Chains of others."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows without a chain by reason: `toxic`, all of their continuations are; `no_generation`."""
    problems: dict[str, int] = field(default_factory=dict)
    """Ill-formed chains, and those whose texts hold a mark, by kind."""
    groups: int = 0
    """Chains with a toxic continuation at least, which the contrastive term needs."""


def find_grammar(name: str) -> Grammar:
    """Returns a grammar by its name.

    Args:
        name: `paper` or `student`.

    Raises:
        ValueError: there is no such grammar.

    Example:
        >>> find_grammar("paper").write_input("hello")
        '# Text: hello'
    """
    if name not in GRAMMARS:
        raise ValueError(f"grammar must be one of {', '.join(GRAMMARS)}: got {name!r:.60}")
    return GRAMMARS[name]


def make_chains(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    grammar: str = "paper",
    resume: bool = True,
    skip_bad_rows: bool = False,
    progress: Progress | None = None,
) -> ChainSummary:
    r"""Writes rows of training for prompts and their continuations, in the order of the input.

    Rows without a continuation that is clean are left out and counted.

    Source: section 3.4 of the specification; `utils/make_train_set.py` of the authors.

    Args:
        source: JSONL with `prompt`, `generation` and `cont_toxicity`, of a toxic prompt also
            `mask_prompt` and `recover_prompt`; `.gz` is decompressed, `-` is standard input.
        target: where the rows go, as JSONL; `-` is standard output.
        grammar: `paper` or `student`.
        resume: go on where an earlier run ended; otherwise start anew.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        progress: called with the bytes of the input read so far.

    Raises:
        FileExistsError: another run's rows stand there, or one is writing.
        OSError: a file cannot be read or written.
        ValueError: there is no such grammar, or a row cannot be used; the text names file and
            line.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "in.jsonl")
        ...     _ = file.write_text('{"prompt": "hello", "generation": ["world", "blorp"], '
        ...                         '"cont_toxicity": [0.1, 0.8]}\n')
        ...     make_chains(file, Path(folder, "out.jsonl")).groups
        1
    """
    kind = find_grammar(grammar)
    counts: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    problems: Counter[str] = Counter()
    with RowStream(
        source, target, {"grammar": grammar}, resume=resume, skip_bad_rows=skip_bad_rows,
        progress=progress,
    ) as stream:  # fmt: skip
        for row in stream:
            try:
                made = make_training_row(row.value, kind)
            except ValueError as error:
                stream.refuse(row, str(error))
                continue
            if isinstance(made, str):
                left_out[made] += 1
                stream.write(row)
                continue
            counts[made["label"]] += 1
            counts["groups"] += len(made["cont_generation"]) > 1
            problems.update(filter(None, [find_problem(made, kind)]))
            stream.write(row, made)
    return ChainSummary(
        rows=stream.rows, resumed_rows=stream.resumed_rows, bad_rows=stream.bad_rows,
        listed_bad_rows=list(stream.listed_bad_rows), toxic=counts["toxic"],
        non_toxic=counts["non-toxic"], left_out=dict(left_out), problems=dict(problems),
        groups=counts["groups"],
    )  # fmt: skip


def check_chains(
    source: str | os.PathLike[str],
    *,
    grammar: str = "paper",
    skip_bad_rows: bool = False,
    progress: Progress | None = None,
) -> ChainSummary:
    r"""Returns what the chains of a file are, and what is wrong with them.

    Args:
        source: JSONL in a form of `lmcore.detox.chain_rows`; `.gz` is decompressed, `-` is
            standard input.
        grammar: `paper` or `student`.
        skip_bad_rows: count and list rows that hold no text instead of raising.
        progress: called with the bytes read so far.

    Returns:
        `toxic` and `non_toxic` count the chains that can be read, `problems` the ill-formed ones
        by kind.

    Raises:
        OSError: the file cannot be read.
        ValueError: there is no such grammar, or a row has no text; the text names file and line.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        ...     _ = file.write('{"output": "# Text: and so on"}\n'), file.flush()
        ...     check_chains(file.name).problems
        {'no_verdict': 1}
    """
    kind = find_grammar(grammar)
    counts: Counter[str] = Counter()
    problems: Counter[str] = Counter()
    reader = RowReader(source, skip_bad_rows=skip_bad_rows, progress=progress)
    for line, value in reader:
        try:
            problem = find_problem(value, kind)
            row = None if problem not in _READABLE else read_chain_row(value, kind)
        except ValueError as error:
            reader.refuse(line, str(error))
            continue
        counts["rows"] += 1
        problems.update(filter(None, [problem]))
        if row is not None:
            counts["toxic" if row.chain.toxic else "non_toxic"] += 1
            counts["groups"] += row.has_group
    return ChainSummary(
        rows=counts["rows"], bad_rows=reader.bad_rows,
        listed_bad_rows=list(reader.listed_bad_rows), toxic=counts["toxic"],
        non_toxic=counts["non_toxic"], problems=dict(problems), groups=counts["groups"],
    )  # fmt: skip


# What does not keep a chain from being read.
_READABLE = (None, "no_end", "mark_in_field")
