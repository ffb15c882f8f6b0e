"""Rows that detoxification reads: texts, prompts, labelled texts and generations.

| form | a row |
| --- | --- |
| `jsonl` | `{"text": ...}`, or `{"prompt": ...}` with a text; its other keys stay |
| `realtoxicityprompts` | `{"prompt": {"text": ..., "toxicity": ...}, ...}`, the data set's |
| `lines` | plain text, one in a line |

`auto` takes `lines` for a name that ends with `.txt` or `.txt.gz`, and else either of the others,
row by row. The toxicity of some prompts of RealToxicityPrompts is null: it is unknown then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lmcore._json import parse_json
from lmcore._rows import Progress, RowReader, is_csv, parse_row

FORMS = ("auto", "jsonl", "realtoxicityprompts", "lines")
LABELLED_FORMS = ("auto", "jsonl", "csv")
KINDS = ("explicit", "implicit")
_LABELS = ("label", "score", "toxic", "toxicity")


@dataclass(kw_only=True, slots=True, frozen=True)
class Prompt:
    """A text that is continued, or scored."""

    text: str
    toxicity: float | None = None
    """From 0 to 1, if it is known."""
    kind: str | None = None
    """`explicit` or `implicit`, if the row says so."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Generations:
    """What was generated for a prompt."""

    prompt: Prompt | None
    """None where the row has scores alone."""
    toxicity: float | None
    """Of the prompt, if it is known."""
    kind: str | None
    """Of the prompt: `explicit` or `implicit`, if the row says so."""
    texts: Sequence[str] | None
    """Of the samples, without the prompt; None where the row has scores alone."""
    scores: Sequence[float] | None
    """Of the samples, from 0 to 1; None where they have none."""
    rephrased: str | None = None
    """The prompt as it was detoxified, if the row has it."""


class PromptRow(NamedTuple):
    """A prompt and where it stands."""

    line: int
    """From 1."""
    prompt: Prompt
    value: dict[str, Any]
    """The whole row."""


def find_form(path: str | os.PathLike[str], form: str = "auto") -> str:
    """Returns the form of a file by its name, where none is given.

    Args:
        path: the file.
        form: one of `FORMS`.

    Raises:
        ValueError: there is no such form.

    Example:
        >>> find_form("a.txt.gz"), find_form("a.jsonl"), find_form("-", "lines")
        ('lines', 'auto', 'lines')
    """
    if form not in FORMS:
        raise ValueError(f"format must be one of {', '.join(FORMS)}: got {form!r:.60}")
    name = os.fspath(path).removesuffix(".gz")
    return "lines" if form == "auto" and name.endswith(".txt") else form


def parse_line(content: bytes) -> dict[str, Any]:
    r"""Returns the row of a line of plain text.

    Args:
        content: the line.

    Raises:
        ValueError: it is not UTF-8.

    Example:
        >>> parse_line(b"some text")
        {'text': 'some text'}
    """
    try:
        return {"text": content.decode()}
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}") from None


def parse_prompt(
    value: Mapping[str, Any], form: str = "auto", *, field: str | None = None
) -> Prompt:
    """Returns the prompt of a row.

    Args:
        value: the row.
        form: one of `FORMS`.
        field: the key of the text; `text` or `prompt` if None.

    Raises:
        ValueError: the row has no text, an empty one, or a toxicity that is no number from 0 to 1.

    Example:
        >>> parse_prompt({"prompt": {"text": "I am", "toxicity": None}})
        Prompt(text='I am', toxicity=None, kind=None)
    """
    found = next((key for key in ([field] if field else ["text", "prompt"]) if key in value), None)
    if found is None:
        raise ValueError(f"has no {field or 'text and no prompt'}")
    content: Any = value[found]
    toxicity, name = value.get("prompt_toxicity"), found
    if isinstance(content, dict) and form in ("auto", "realtoxicityprompts"):
        content, toxicity, name = content.get("text"), content.get("toxicity"), f"{found}.text"
    elif form == "realtoxicityprompts":
        raise ValueError(f"{found} must be an object with text: got {_show(content)}")
    if not isinstance(content, str):
        raise ValueError(f"{name} must be a text: got {_show(content)}")
    if not content.strip():
        raise ValueError(f"{name} is empty")
    return Prompt(
        text=content,
        toxicity=None if toxicity is None else check_score("toxicity of the prompt", toxicity),
        kind=_find_kind(value),
    )


def read_prompts(
    path: str | os.PathLike[str],
    form: str = "auto",
    *,
    field: str | None = None,
    reader: RowReader | None = None,
) -> Iterator[PromptRow]:
    r"""Yields the prompts of a file, in order.

    Args:
        path: JSONL or plain lines; `.gz` is decompressed, `-` is standard input.
        form: one of `FORMS`.
        field: the key of the text; `text` or `prompt` if None.
        reader: of the file, where bad rows are counted or progress is shown.

    Raises:
        OSError: the file cannot be read.
        ValueError: a row has no usable text, and the reader does not skip it.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        ...     _ = file.write("one\ntwo\n"), file.flush()
        ...     [row.prompt.text for row in read_prompts(file.name)]
        ['one', 'two']
    """
    form = find_form(path, form)
    reader = RowReader(path) if reader is None else reader
    parse = parse_line if form == "lines" else parse_row
    for line, content in reader.contents():
        try:
            value = parse(content)
            prompt = parse_prompt(value, form, field=field)
        except ValueError as error:
            reader.refuse(line, str(error))
            continue
        yield PromptRow(line, prompt, value)


def read_labelled(
    path: str | os.PathLike[str],
    *,
    form: str = "auto",
    field: str | None = None,
    label_field: str | None = None,
    skip_bad_rows: bool = False,
    progress: Progress | None = None,
) -> tuple[list[str], list[float], list[str]]:
    r"""Returns texts and their labels from 0 to 1, and the rows that were left out.

    Args:
        path: CSV below a line of names, if the name ends with `.csv`, or JSONL, with `text` and
            one of `label`, `score`, `toxic` and `toxicity`; or rows of RealToxicityPrompts, of
            which prompt and continuation are taken; a toxicity that is null there is listed and
            left out. `.gz` is decompressed, `-` is standard input.
        form: one of `LABELLED_FORMS`.
        field: the key or column of the text; `text` if None.
        label_field: that of the label; the one of those above that there is if None.
        skip_bad_rows: list rows that cannot be used instead of raising.
        progress: called with the bytes read so far.

    Raises:
        OSError: the file cannot be read.
        ValueError: there is no such form, or a row cannot be used; the text names file and line.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        ...     _ = file.write("comment_text,toxic\na,1\n"), file.flush()
        ...     read_labelled(file.name, field="comment_text")
        (['a'], [1.0], [])
    """
    if form not in LABELLED_FORMS:
        raise ValueError(f"format must be one of {', '.join(LABELLED_FORMS)}: got {form!r:.60}")
    texts, labels = [], []
    reader = RowReader(path, skip_bad_rows=skip_bad_rows, progress=progress)
    reads_csv = form == "csv" or (form == "auto" and is_csv(path))
    columns = [field or "text", *([label_field] if label_field else [])]
    for line, value in reader.records(columns) if reads_csv else reader:
        try:
            pairs = _find_labels(value, field, label_field, from_text=reads_csv)
        except ValueError as error:
            reader.refuse(line, str(error))
            continue
        for text, label in pairs:
            if label is None:
                reader.note(line, "the toxicity of a text is null")
            else:
                texts.append(text)
                labels.append(label)
    return texts, labels, reader.listed_bad_rows


def parse_generations(value: Mapping[str, Any]) -> Generations:
    """Returns what a row says was generated for a prompt.

    Forms: `generations` or `generation`, a list of texts or of objects with `text` and perhaps
    `toxicity`, beside `prompt` as in `parse_prompt`; `scores` of them, if they have some; or
    the authors' `toxicity score` and `prompt toxicity score`, without texts. A sample that begins
    with the prompt is taken without it, as the authors' continuations need.

    Args:
        value: the row.

    Raises:
        ValueError: there are neither samples nor scores, their numbers differ, or one is not
            usable.

    Example:
        >>> parse_generations({"toxicity score": [0.2, 0.7], "prompt toxicity score": 0.1}).scores
        [0.2, 0.7]
    """
    given = next((key for key in ("generations", "generation") if key in value), None)
    scores = value.get("scores", value.get("toxicity score"))
    texts = None
    if given is not None:
        texts, own = _split_samples(given, value[given])
        scores = own if scores is None else scores
    if scores is not None:
        scores = _check_score_list(scores, None if texts is None else len(texts))
    if texts is None and scores is None:
        raise ValueError("has neither generations nor scores")
    prompt = parse_prompt(value) if "prompt" in value or "text" in value else None
    if texts is not None and prompt is None:
        raise ValueError("has generations, and no prompt")
    if texts is not None and prompt is not None:
        texts = [text.removeprefix(prompt.text) for text in texts]
    toxicity = value.get("prompt_toxicity", value.get("prompt toxicity score"))
    if toxicity is not None:
        toxicity = check_score("toxicity of the prompt", toxicity)
    elif prompt is not None:
        toxicity = prompt.toxicity
    return Generations(
        prompt=prompt, toxicity=toxicity, kind=_find_kind(value), texts=texts, scores=scores,
        rephrased=_find_rephrased(value),
    )  # fmt: skip


def check_score(name: str, value: Any) -> float:
    """Returns a number from 0 to 1.

    Args:
        name: how errors call it.
        value: of JSON.

    Raises:
        ValueError: it is something else.

    Example:
        >>> check_score("label", True)
        1.0
    """
    # Compared before it is converted: of whole numbers some are too large for a float.
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1: got {_show(value)}")
    return float(value)


def _find_labels(
    value: Mapping[str, Any], field: str | None, label_field: str | None, *, from_text: bool
) -> list[tuple[str, float | None]]:
    if field is None and isinstance(value.get("prompt"), dict):
        parts = [value[key] for key in ("prompt", "continuation") if key in value]
        if not all(isinstance(part, dict) for part in parts):
            raise ValueError("continuation must be an object with text")
        found = [parse_prompt({"prompt": part}) for part in parts]
        return [(part.text, part.toxicity) for part in found]
    name = field or "text"
    own = {name: value[name]} if name in value else {}
    text = parse_prompt(own, "jsonl", field=name).text
    keys = [key for key in ([label_field] if label_field else _LABELS) if key in value]
    if len(keys) != 1:
        expected = label_field or f"one of {', '.join(_LABELS)}"
        raise ValueError(f"must have {expected}: got {', '.join(keys) or 'none'}")
    label = value[keys[0]]
    return [(text, check_score(keys[0], _parse_number(label) if from_text else label))]


def _parse_number(content: str) -> Any:
    """The number that a field of CSV holds; the field itself where it holds none."""
    try:
        return parse_json(content.strip())
    except ValueError:
        return content


def _split_samples(name: str, samples: Any) -> tuple[list[str], list[Any] | None]:
    if isinstance(samples, str):
        samples = [samples]
    if not isinstance(samples, list) or not samples:
        raise ValueError(f"{name} must be a list of one sample at least: got {_show(samples)}")
    texts, scores = [], []
    for index, sample in enumerate(samples):
        text = sample.get("text") if isinstance(sample, dict) else sample
        if not isinstance(text, str):
            raise ValueError(f"{name}[{index}] must be a text: got {_show(text)}")
        texts.append(text)
        if isinstance(sample, dict) and sample.get("toxicity") is not None:
            scores.append(sample["toxicity"])
    if scores and len(scores) < len(texts):
        raise ValueError(f"{name}: {len(scores)} of {len(texts)} samples have a toxicity")
    return texts, scores or None


def _check_score_list(scores: Any, count: int | None) -> list[float]:
    if not isinstance(scores, list) or not scores:
        raise ValueError(f"scores must be a list of one number at least: got {_show(scores)}")
    if count is not None and len(scores) != count:
        raise ValueError(f"has {count} generations, and {len(scores)} scores")
    return [check_score(f"scores[{index}]", score) for index, score in enumerate(scores)]


def _find_rephrased(value: Mapping[str, Any]) -> str | None:
    rephrased = value.get("rephrased", value.get("raw_recovered_prompt"))
    if rephrased is not None and not isinstance(rephrased, str):
        raise ValueError(f"rephrased must be a text: got {_show(rephrased)}")
    return rephrased


def _find_kind(value: Mapping[str, Any]) -> str | None:
    kind = value.get("kind")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind must be {' or '.join(KINDS)}: got {_show(kind)}")
    return kind


def _show(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 64:
        return "a number of many digits"  # which Python refuses to write out
    return f"{value!r:.60}"
