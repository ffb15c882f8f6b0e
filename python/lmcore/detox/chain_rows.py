"""Rows of chains: what they hold for training, and what is wrong with them.

| form | keys |
| --- | --- |
| of `make_train_set` | `output` (the whole chain), `cont_generation` (the clean continuation, then toxic ones), perhaps `cl_template` |
| of a student | `input` (the prompt) and `output` (what follows it) |

The authors' reader looks for continuations under `generation`, where their writer writes
`cont_generation`, so that their contrastive term never runs; both names are read here.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmcore.detox.chains import PAPER, Chain, ChainError, Grammar, Problem

_TEXTS = ("cont_generation", "generation")


@dataclass(kw_only=True, slots=True, frozen=True)
class ChainRow:
    """A chain for training."""

    chain: Chain
    source: str
    """What the model is given."""
    target: str
    """What it shall write."""
    template: str
    """The whole chain as far as the mark behind which the continuation follows."""
    continuations: tuple[str, ...] = ()
    """The clean one, then toxic ones; empty where the row has none."""

    @property
    def has_group(self) -> bool:
        """Whether there is something to contrast: a clean continuation and a toxic one."""
        return len(self.continuations) > 1


def read_chain_row(row: Mapping[str, Any], grammar: Grammar = PAPER) -> ChainRow:
    """Returns what a row holds for training.

    Args:
        row: in one of the forms above.
        grammar: of its chain.

    Raises:
        ChainError: its text is no chain.
        ValueError: a key is missing, or its value is no text or no list of texts.

    Example:
        >>> text = ("# Text: hello # Let's detoxify step by step. # The context is non-toxic. "
        ...     "# Generation: world #")
        >>> row = read_chain_row({"output": text, "cont_generation": ["world", "blorp"]})
        >>> row.source, row.has_group
        ('# Text: hello', True)
    """
    output, prompt = _read_text(row, "output"), None
    if "input" in row:
        prompt = _read_text(row, "input")
    chain = grammar.parse(output) if prompt is None else grammar.parse_output(prompt, output)
    source = grammar.write_input(chain.prompt)
    target = output if prompt is not None else output[output.index(source) + len(source) :]
    template = row.get("cl_template")
    if template is None:
        template = grammar.write_template(chain)
    elif not isinstance(template, str):
        raise ValueError("cl_template: expected a text")
    elif not template.startswith(source):
        raise ValueError("cl_template: begins otherwise than the chain under output")
    return ChainRow(
        chain=chain, source=source, target=target, template=template,
        continuations=_read_continuations(row),
    )  # fmt: skip


def find_problem(row: Mapping[str, Any], grammar: Grammar = PAPER) -> Problem | None:
    """Returns what is wrong with the chain of a row, or nothing.

    Besides what `Grammar.parse` refuses these are `no_end`, a chain without its last mark, and
    `mark_in_field`: a text that holds a mark of the grammar, so that another chain is read than
    was written.

    Args:
        row: in one of the forms above.
        grammar: of its chain.

    Raises:
        ValueError: a key is missing, or its value is no text.

    Example:
        >>> find_problem({"output": "# Text: hello"})
        'no_verdict'
    """
    output = _read_text(row, "output")
    prompt = _read_text(row, "input") if "input" in row else None
    try:
        chain = grammar.parse(output) if prompt is None else grammar.parse_output(prompt, output)
    except ChainError as error:
        return error.problem
    if grammar.find_mark(chain) is not None:
        return "mark_in_field"
    whole = grammar.write(chain) if prompt is None else grammar.write_output(chain)
    given, whole = output.strip(), whole.strip()
    if given == whole:
        return None
    return "no_end" if whole.startswith(given) else "mark_in_field"


def _read_text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key}: {'missing' if value is None else 'expected a text'}")
    return value


def _read_continuations(row: Mapping[str, Any]) -> tuple[str, ...]:
    for key in _TEXTS:
        value = row.get(key)
        if value is None:
            continue
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise ValueError(f"{key}: expected a list of texts")
        # A text of nothing is how the authors fill up: it is absent.
        positive, negatives = value[:1], [text for text in value[1:] if text.strip()]
        if positive and positive[0].strip():
            return (*positive, *negatives)
    return ()
