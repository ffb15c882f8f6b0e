"""Files of pairs to files of samples, one for each seed, in rows as the authors write them.

A row has `recover` (what was made), `reference` and `source`, with the tokens around the texts. A
batch is a function of the input alone, so a run that was killed goes on behind the last whole
batch and ends with the same bytes: how numbers are rounded depends on the size of a batch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import torch

from lmcore._finished import FinishedOutput
from lmcore._row_stream import RowStream
from lmcore._rows import Row
from lmcore.diffusion.outputs import check_outputs, name_outputs, read_again
from lmcore.diffusion.pairs import PairParser, find_form
from lmcore.diffusion.texts import Question, TextGenerator
from lmcore.training.fingerprint import fingerprint_model

Progress = Callable[[int], object]


@dataclass(kw_only=True, slots=True, frozen=True)
class SampleSummary:
    """What `sample_file` did."""

    rows: int
    """Rows of the input that have their sample, from earlier starts as well."""
    resumed_rows: int
    """Those of earlier starts, which the counts below do not hold."""
    bad_rows: int
    listed_bad_rows: list[str]
    sampled: int = 0
    """Sources that were answered: fewer than rows where references are grouped."""
    cut_sources: int = 0
    """Sources of which the model read a beginning."""
    cut_targets: int = 0
    """References that are longer than the row has room for."""
    cut_tokens: int = 0
    """Tokens that both have lost."""
    unknown_tokens: int = 0
    """Tokens of both that stand for text which has none."""


def sample_file(
    generator: TextGenerator,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    seed: int = 0,
    form: str = "auto",
    group_references: bool = False,
    resume: bool = True,
    skip_bad_rows: bool = False,
    progress: Progress | None = None,
    name: str | None = None,
) -> SampleSummary:
    r"""Writes a sample for each pair of a file, in the order of the input.

    A row is `{"recover": ..., "reference": ..., "source": ...}`; where a pair has no target its
    `reference` is empty. A source that had to be cut, or a target that is longer than the row has
    room for, is named under `truncated`; `reference` is whole in any case.

    Args:
        generator: a model and its settings.
        source: pairs, as for `lmcore.diffusion.pairs`, whose targets may be missing; `.gz` is
            decompressed, `-` is standard input.
        target: where the rows go, as JSONL; `-` is standard output.
        seed: of the noise, below 2**64.
        form: of the pairs, one of `lmcore.diffusion.pairs.FORMS`.
        group_references: whether rows that follow each other with the same source become one,
            with all of their targets under `references`; `reference` is then the first.
        resume: go on where an earlier run ended; otherwise start anew.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        progress: called with the number of sources of each batch that is done.
        name: how errors call the source; its own name by default.

    Raises:
        FileExistsError: another run's rows stand there, or one is writing.
        OSError: a file cannot be read or written.
        ValueError: a row cannot be used; the text names file and line.

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
        ...     source, target = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        ...     _ = source.write_text('{"src": "a b", "trg": "b"}')
        ...     summary = sample_file(generator, source, target)
        ...     target.read_text().endswith('"reference": "[CLS] b [SEP]", '
        ...                                 '"source": "[CLS] a b [SEP] [SEP]"}\n')
        True
    """
    parser = PairParser(find_form(source, form), needs_target=False)
    recipe = {
        **_describe(generator), "form": find_form(source, form),
        "group_references": group_references, "seed": seed,
    }  # fmt: skip
    counts = _Counts()
    with RowStream(
        source, target, recipe, resume=resume, skip_bad_rows=skip_bad_rows, by_block=True,
        parse=lambda content: parser.parse(content)._asdict(),
        head=parser.read_names if parser.has_names else None,
        name=name,
    ) as stream:  # fmt: skip
        block: list[list[Row]] = []

        def finish() -> None:
            asked = _ask(generator, stream, block)
            answers = generator.answer([question for _, question, _ in asked], seed)
            for (group, question, references), ids in zip(asked, answers, strict=True):
                counts.add(question)
                for row in group[1:]:
                    stream.write(row)
                stream.write(group[0], _make_row(
                    generator, question, ids, references if group_references else None
                ))  # fmt: skip
            stream.release()
            block.clear()
            if progress is not None and asked:
                progress(len(asked))

        for group in _group(stream, by_source=group_references):
            block.append(group)
            if len(block) == generator.sampling.batch_size:
                finish()
        finish()
    return SampleSummary(
        rows=stream.rows,
        resumed_rows=stream.resumed_rows,
        bad_rows=stream.bad_rows,
        listed_bad_rows=list(stream.listed_bad_rows),
        **asdict(counts),
    )


def sample_files(
    generator: TextGenerator,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    seeds: Sequence[int] = (0,),
    form: str = "auto",
    resume: bool = True,
    name: str | None = None,
    **options: Any,
) -> dict[int, SampleSummary]:
    """Writes a file of samples for each seed: `OUT.seed0.jsonl` and so on.

    A run that was killed passes over the files that are whole, and goes on within the next.

    Args:
        generator: a model and its settings.
        source: as for `sample_file`; standard input and pipes are read once.
        out: what the names of the files begin with, as for `name_output`.
        seeds: each once.
        form: of the pairs, one of `lmcore.diffusion.pairs.FORMS`.
        resume: go on where an earlier run ended; otherwise start anew.
        name: how errors call the source; its own name by default.
        options: of `sample_file`.

    Returns:
        What was done, by seed.

    Raises:
        FileExistsError: another run's rows stand there, or one is writing.
        OSError: a file cannot be read or written.
        ValueError: a seed stands there twice, an output is the input, several seeds go to standard
            output, or a row cannot be used; the text names file and line.

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
        ...     source = Path(folder, "in.jsonl")
        ...     _ = source.write_text('{"src": "a b"}')
        ...     _ = sample_files(generator, source, Path(folder, "out"), seeds=[3, 4])
        ...     sorted(path.name for path in Path(folder).glob("out*"))
        ['out.seed3.jsonl', 'out.seed4.jsonl']
    """
    targets = name_outputs(out, seeds)
    check_outputs(targets, source)
    if len(targets) == 1:
        [(seed, target)] = targets.items()
        return {seed: sample_file(
            generator, source, target, seed=seed, form=form, resume=resume, name=name, **options
        )}  # fmt: skip
    with read_again(source) as (file, own_name):
        name = own_name if name is None else name
        form = find_form(source, form)
        given = {"form": form, "group_references": options.get("group_references", False)}
        given |= {"skip_bad_rows": options.get("skip_bad_rows", False)}
        recipe = {**_describe(generator), **given, "input": _hash_file(file)}
        outputs = {
            seed: FinishedOutput(path, {**recipe, "seed": seed}) for seed, path in targets.items()
        }
        done = {}
        for seed, target in targets.items():
            known = outputs[seed].load() if resume else None
            if known is not None:
                rows = {"rows": known["rows"], "resumed_rows": known["rows"]}
                bad = {key: known[key] for key in ("bad_rows", "listed_bad_rows")}
                done[seed] = SampleSummary(**rows, **bad)
                continue
            outputs[seed].remove()
            done[seed] = sample_file(
                generator, file, target, seed=seed, form=form, resume=resume, name=name, **options
            )
            outputs[seed].save(asdict(done[seed]))
    for seed, output in outputs.items():
        if output.load() is None:
            raise FileExistsError(f"{targets[seed]}: has changed since it was written")
    for output in outputs.values():
        output.remove()
    return done


@dataclass(slots=True)
class _Counts:
    """The counts of a summary."""

    sampled: int = 0
    cut_sources: int = 0
    cut_targets: int = 0
    cut_tokens: int = 0
    unknown_tokens: int = 0

    def add(self, question: Question) -> None:
        self.sampled += 1
        self.cut_sources += question.cut_source > 0
        self.cut_targets += question.cut_target > 0
        self.cut_tokens += question.cut_source + question.cut_target
        self.unknown_tokens += question.unknown


def _describe(generator: TextGenerator) -> dict[str, Any]:
    """All that samples depend on besides the input and the seed."""
    model = generator.model
    weight = model.position_embeddings.weight
    return {
        "model": fingerprint_model(model, generator.tokenizer),
        **asdict(generator.sampling.sampler),
        **{k: v for k, v in asdict(generator.sampling).items() if k != "sampler"},
        "steps": len(generator.timesteps),
        "length": generator.length,
        "noise": [model.config.noise_schedule, model.config.diffusion_steps],
        "precision": str(weight.dtype).removeprefix("torch."),
        "device": str(weight.device),
        "threads": torch.get_num_threads(),
    }


def _group(stream: RowStream, *, by_source: bool) -> Iterator[list[Row]]:
    """Rows that get one sample."""
    if not by_source:
        yield from ([row] for row in stream)
        return
    for _, rows in groupby(stream, key=lambda row: row.value["source"]):
        yield [*rows]


def _ask(
    generator: TextGenerator, stream: RowStream, block: Sequence[list[Row]]
) -> list[tuple[list[Row], Question, list[list[int]]]]:
    """The groups that can be used, what is asked of each, and their references."""
    encode = generator.tokenizer.encode_batch
    sources = encode([group[0].value["source"] for group in block])
    rows = [row for group in block for row in group]
    targets = iter(encode([row.value["target"] for row in rows]))
    asked = []
    for group, source in zip(block, sources, strict=True):
        usable, references = [], []
        for row in group:
            target = next(targets)
            if not source or (row.value["target"] and not target):
                stream.refuse(row, f"its {'target' if source else 'source'} has no tokens")
                continue
            usable.append(row)
            if target:
                references.append(target)
        if usable:
            # Of several references the longest says how much room the source leaves.
            question = generator.ask(source, max(references, key=len, default=()))
            asked.append((usable, question, references))
    return asked


def _make_row(
    generator: TextGenerator,
    question: Question,
    ids: Sequence[int],
    references: Sequence[Sequence[int]] | None,
) -> dict[str, Any]:
    first = question.reference if references is None else next(iter(references), ())
    row: dict[str, Any] = {
        "recover": generator.read(ids),
        "reference": generator.read_reference(first),
        "source": generator.read(question.given),
    }
    if references is not None:
        row["references"] = [generator.read_reference(target) for target in references]
    if question.truncated:
        row["truncated"] = question.truncated
    return row


def _hash_file(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
