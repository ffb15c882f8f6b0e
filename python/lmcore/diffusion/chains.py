"""What a model takes a text to be at each step of its chain, and the page that shows it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape
from itertools import groupby, islice

import torch
from torch import Tensor

from lmcore import _page
from lmcore.diffusion.pairs import PairReader
from lmcore.diffusion.sampling import Step, read_tokens
from lmcore.diffusion.texts import Question, TextGenerator

# Above this a chain's earlier lines are folded.
_LINES = 60


@dataclass(kw_only=True, slots=True, frozen=True)
class Chain:
    """The texts of one row, from the noisiest step to the last."""

    source: str
    reference: str
    """Empty where it is not known."""
    timesteps: tuple[int, ...]
    """Of the training, those that the steps stand for."""
    texts: tuple[str, ...]
    """At each step the estimate of the clean text, as the output layer reads it."""

    @property
    def settled(self) -> int:
        """After how many steps the text is the one that the chain ends with."""
        last = self.texts[-1]
        changed = [number for number, text in enumerate(self.texts, 1) if text != last]
        return 1 + max(changed, default=0)


def trace_chains(
    generator: TextGenerator, questions: Sequence[Question], *, seed: int = 0
) -> list[Chain]:
    """Returns the chains of some sources: the same noise as that of their samples.

    Args:
        generator: a model and its settings.
        questions: of `TextGenerator.encode`; they are one batch.
        seed: of the noise, below 2**64.

    Example:
        >>> from lmcore.diffusion.texts import SamplingConfig
        >>> from lmcore.diffusion.models import make_model
        >>> from lmcore.diffusion.pairs import Pair
        >>> from lmcore.diffusion.recipes import tiny
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"])
        >>> generator = TextGenerator(
        ...     make_model(tiny(), tokenizer), tokenizer, SamplingConfig(steps=2, length=8))
        >>> [chain] = trace_chains(generator, generator.encode([Pair("a", "")]))
        >>> chain.timesteps, len(chain.texts)
        ((1999, 667), 2)
    """
    seen: list[Tensor] = []

    def look(step: Step) -> None:
        seen.append(read_tokens(generator.model, step.estimates))

    generator.answer(questions, seed, callback=look)
    if not questions:
        return []
    # The device is waited for once, at the end.
    states = torch.stack(seen, 1).tolist()
    return [
        Chain(
            source=generator.read(question.given),
            reference=generator.read_reference(question.reference),
            timesteps=tuple(generator.timesteps),
            texts=tuple(generator.read(ids[len(question.given) :]) for ids in rows),
        )
        for question, rows in zip(questions, states, strict=True)
    ]


def trace_file(
    generator: TextGenerator,
    source: str | os.PathLike[str],
    rows: int,
    *,
    seed: int = 0,
    form: str = "auto",
) -> list[Chain]:
    """Returns the chains of the first rows of a file that can be used.

    Args:
        generator: a model and its settings.
        source: pairs, whose targets may be missing.
        rows: how many.
        seed: of the noise, below 2**64.
        form: of the pairs, one of `lmcore.diffusion.pairs.FORMS`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no rows.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lmcore.diffusion.texts import SamplingConfig
        >>> from lmcore.diffusion.models import make_model
        >>> from lmcore.diffusion.recipes import tiny
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"])
        >>> generator = TextGenerator(
        ...     make_model(tiny(), tokenizer), tokenizer, SamplingConfig(steps=2, length=8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "a.jsonl")
        ...     _ = file.write_text('{"src": "a"}')
        ...     [chain] = trace_file(generator, file, 3)
        >>> chain.source
        '[CLS] a [SEP] [SEP]'
    """
    reader = PairReader(source, form=form, skip_bad_rows=True, needs_target=False)
    return trace_chains(generator, [*islice(_ask(generator, reader), rows)], seed=seed)


def render_chains(chains: Sequence[Chain], *, title: str, settings: Sequence[str] = ()) -> str:
    """Returns chains as a page that needs no other file.

    Steps that have the same text are one line, and words that were not there a line before have a
    sign and a colour.

    Args:
        chains: in any number.
        title: of the page.
        settings: lines that say how the texts were made.

    Example:
        >>> chain = Chain(source="s", reference="", timesteps=(9, 0), texts=("a b", "a c"))
        >>> page = render_chains([chain], title="t")
        >>> "final after 2 of 2 steps" in page, page.count("<mark class=new>")
        (True, 3)
    """
    parts = [f"<h1>{escape(title)}</h1>", f"<p class=verdict>{_judge(chains)}</p>"]
    parts += [f"<p class=note>{escape(line)}</p>" for line in settings]
    parts.append(
        "<p class=note>Each line is what the model takes the whole text to be at a step. "
        f"{_mark('words')} were not there a line before, {_gone('words')} were.</p>"
    )
    parts += [_section(number, chain) for number, chain in enumerate(chains, 1)]
    return _page.render(title, parts)


def _ask(generator: TextGenerator, pairs: PairReader) -> Iterator[Question]:
    for pair in pairs:
        try:
            [question] = generator.encode([pair])
        except ValueError:  # it has no tokens, and no sample either
            continue
        yield question


def _judge(chains: Sequence[Chain]) -> str:
    if not chains:
        return "There is no row that could be shown."
    after = [str(chain.settled) for chain in chains]
    steps = len(chains[0].texts)
    listed = after[0] if len(after) == 1 else f"{', '.join(after[:-1])} and {after[-1]}"
    return f"<b>Final after {listed} of {steps} steps.</b>"


def _section(number: int, chain: Chain) -> str:
    facts = [f"<p><span class=note>source:</span> {escape(chain.source)}</p>"]
    if chain.reference:
        facts.append(f"<p><span class=note>reference:</span> {escape(chain.reference)}</p>")
    verdict = f"final after {chain.settled} of {len(chain.texts)} steps"
    if chain.reference and chain.texts[-1] == chain.reference:
        verdict += ", and equal to the reference"
    lines = [*_lines(chain)]
    early, late = lines[:-_LINES], lines[-_LINES:]
    folded = _page.fold(_list(early), f"{len(early)} earlier lines", is_long=True) if early else ""
    return (
        f"<section><header><span>row {number}</span><b>{verdict}</b></header>"
        f"{''.join(facts)}{folded}{_list(late)}</section>"
    )


def _list(lines: Sequence[str]) -> str:
    return f"<dl class=steps>{''.join(lines)}</dl>"


def _lines(chain: Chain) -> Iterator[str]:
    """A line for each text, however many steps have it."""
    before: list[str] = []
    numbered = enumerate(zip(chain.timesteps, chain.texts, strict=True), 1)
    for text, group in groupby(numbered, key=lambda item: item[1][1]):
        steps = [(number, timestep) for number, (timestep, _) in group]
        (first, begin), (last, end) = steps[0], steps[-1]
        name = f"step {first}" if first == last else f"steps {first} to {last}"
        place = f"t = {begin}" if begin == end else f"t = {begin} to {end}"
        words = text.split()
        yield f"<dt>{name}<br>{place}</dt><dd>{_show(before, words)}</dd>"
        before = words


def _show(before: Sequence[str], words: Sequence[str]) -> str:
    parts = []
    for kind, a, b, c, d in SequenceMatcher(None, before, words, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(escape(" ".join(words[c:d])))
        elif kind == "delete":
            parts.append(_gone(" ".join(before[a:b])))
        else:
            parts.append(_mark(" ".join(words[c:d])))
    return " ".join(parts) or "<span class=note>nothing but padding</span>"


def _mark(text: str) -> str:
    return f'<mark class=new><b title="new">+</b>{escape(text)}</mark>'


def _gone(text: str) -> str:
    return f'<mark class=wrong><b title="gone">−</b><del>{escape(text)}</del></mark>'
