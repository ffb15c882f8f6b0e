"""Rows of prompts to rows with what a model generated for them.

Prompts are answered in batches of similar lengths, made within blocks of rows; what comes out
stands in the order of the input. Blocks are a function of the input alone, so a run that was
killed goes on behind the last whole block and ends with the same bytes: how numbers are rounded
depends on what a row shares its batch with.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from lmcore._extras import optional_imports
from lmcore._row_stream import RowStream
from lmcore._rows import Row, parse_row
from lmcore.openba.documents import find_form
from lmcore.openba.generation import Generation, TextGenerator
from lmcore.training.fingerprint import fingerprint_model

with optional_imports():
    import torch

FORMS = ("auto", "text", "jsonl")
_KEYS = ("prompt", "text")
# Batches that are made of one block: the more, the less padding, and the more is lost by a kill.
_BATCHES = 16


@dataclass(kw_only=True, slots=True, frozen=True)
class GenerationSummary:
    """What `generate_file` did."""

    rows: int
    """Rows that are written, from earlier starts as well."""
    resumed_rows: int
    """Those of earlier starts, which the counts of what was cut do not hold."""
    bad_rows: int
    listed_bad_rows: list[str]
    truncated_sources: int
    """Prompts of which the encoder read the beginning alone."""
    truncated_outputs: int
    """Texts that were not at their end."""


def generate_file(
    model: Any,
    tokenizer: Any,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    generation: Generation | None = None,
    form: str = "auto",
    resume: bool = True,
    skip_bad_rows: bool = False,
    progress: Callable[[int], object] | None = None,
) -> GenerationSummary:
    """Writes the rows of a file with what a model generated for them.

    A row of JSONL has its prompt under `prompt`, or else under `text`, and keeps what it holds; a
    line of text becomes a row with `prompt`. Each gets `generation`, and `truncated` where
    something was cut. A sample is a function of the seed and the number of the line.

    Args:
        model: an `OpenBAForConditionalGeneration`.
        tokenizer: of the model.
        source: the prompts; `.gz` is decompressed, `-` is standard input.
        target: where the rows go, as JSONL; `-` is standard output.
        generation: how texts are generated; greedy if None.
        form: `text` or `jsonl`; `auto` looks at the name.
        resume: go on where an earlier run ended; otherwise start anew.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        progress: called with the number of prompts of each batch that is done.

    Raises:
        FileExistsError: another run's rows stand there, or one is writing.
        OSError: a file cannot be read or written.
        ValueError: the tokenizer is not the model's, there is no such form, or a row cannot be
            used; the text names file and line.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration, OpenBATokenizer
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pieces, prompts = Path(folder, "spiece.model"), Path(folder, "prompts.txt")
        ...     _ = write_piece_file(pieces), prompts.write_text("Ada met")
        ...     tokenizer = OpenBATokenizer(pieces)
        ...     model = OpenBAForConditionalGeneration(OpenBAConfig(
        ...         vocab_size=tokenizer.padded_size(), hidden_size=8, encoder_layers=1,
        ...         decoder_layers=2, pad_token_id=tokenizer.pad_token_id,
        ...         eos_token_id=tokenizer.eos_token_id))
        ...     generation = Generation(max_new_tokens=2)
        ...     target = Path(folder, "out.jsonl")
        ...     generate_file(model, tokenizer, prompts, target, generation=generation).rows
        1
    """
    generate = TextGenerator(model, tokenizer, generation)
    kind = find_prompt_form(source, form)
    recipe = {
        "model": fingerprint_model(model, tokenizer),
        **asdict(generate.generation),
        "form": kind,
        "device": str(model.device),
        "threads": torch.get_num_threads(),
    }
    cut = {"source": 0, "output": 0}
    size = generate.generation.batch_size * _BATCHES
    with RowStream(
        source, target, recipe, resume=resume, skip_bad_rows=skip_bad_rows, by_block=True,
        parse=parse_row if kind == "jsonl" else _parse_line,
    ) as stream:  # fmt: skip
        block: list[tuple[Row, str]] = []

        def finish() -> None:
            lines = [row.line for row, _ in block]
            answers = generate([prompt for _, prompt in block], rows=lines, progress=progress)
            for (row, _), answer in zip(block, answers, strict=True):
                added: dict[str, Any] = {"generation": answer.text}
                if answer.truncated:
                    added["truncated"] = answer.truncated
                for name in answer.truncated:
                    cut[name] += 1
                stream.write(row, {**row.value, **added})
            stream.release()
            block.clear()

        for row in stream:
            try:
                block.append((row, find_prompt(row.value)))
            except ValueError as error:
                stream.refuse(row, str(error))
            if len(block) == size:
                finish()
        finish()
    return GenerationSummary(
        rows=stream.rows,
        resumed_rows=stream.resumed_rows,
        bad_rows=stream.bad_rows,
        listed_bad_rows=list(stream.listed_bad_rows),
        truncated_sources=cut["source"],
        truncated_outputs=cut["output"],
    )


def find_prompt(row: dict[str, Any]) -> str:
    """Returns the prompt of a row.

    Args:
        row: with a text under `prompt`, or else under `text`.

    Raises:
        ValueError: there is none.

    Example:
        >>> find_prompt({"text": "Ada met", "id": 3})
        'Ada met'
    """
    name = next((name for name in _KEYS if name in row), None)
    if name is None:
        raise ValueError("expected a text under 'prompt' or 'text'")
    prompt = row[name]
    if not isinstance(prompt, str):
        raise ValueError(f"expected a text under {name!r}, got {prompt!r:.60}")
    return prompt


def find_prompt_form(path: str | os.PathLike[str], form: str = "auto") -> str:
    """Returns the form of a file of prompts: that which was given, or what its name says.

    Args:
        path: the file.
        form: one of `FORMS`.

    Raises:
        ValueError: there is no such form.

    Example:
        >>> find_prompt_form("a.jsonl.gz"), find_prompt_form("-"), find_prompt_form("b", "jsonl")
        ('jsonl', 'text', 'jsonl')
    """
    if form not in FORMS:
        raise ValueError(f"format must be one of {', '.join(FORMS)}: got {form!r:.60}")
    found = find_form(path, form)
    return "text" if found == "parquet" else found


def read_prompt(content: bytes) -> str:
    """Returns the prompt that a line of text is.

    Args:
        content: the line.

    Raises:
        ValueError: it is not UTF-8.

    Example:
        >>> read_prompt("Ada 遇见".encode())
        'Ada 遇见'
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}") from None


def _parse_line(content: bytes) -> dict[str, Any]:
    return {"prompt": read_prompt(content)}
