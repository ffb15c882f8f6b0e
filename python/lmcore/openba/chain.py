"""All of it in a row: texts are cleaned and packed, three stages are trained, and a model answers.

Each step is one that has a command of its own, and goes on where it was; so does the chain.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from lmcore._files import FolderLock, write_text
from lmcore._json import parse_json
from lmcore._streams import is_standard
from lmcore.openba.cleaned_files import clean_files
from lmcore.openba.cleaning import CleanConfig
from lmcore.openba.generation import load_generator
from lmcore.openba.indexed import IndexedDataset
from lmcore.openba.instructions import InstructionConfig, write_instructions
from lmcore.openba.packing import pack_files
from lmcore.openba.pair_packing import pack_pairs
from lmcore.openba.pairs import Pairs
from lmcore.openba.recipes import TrainConfig, tiny, tiny_flan, tiny_length_adaptation
from lmcore.openba.templates import read_templates
from lmcore.openba.tokenization_openba import load_tokenizer
from lmcore.openba.training import TrainResult, train
from lmcore.training.config import (
    Between,
    ScheduleConfig,
    change,
    check_fields,
    config_to_dict,
)
from lmcore.training.folder import Recipe, take_recipe
from lmcore.training.optimizer import check_schedule
from lmcore.training.processes import find_device
from lmcore.worlds.openba import TEMPLATES, make_instructions, make_world, write_piece_file
from lmcore.worlds.openba.tasks import list_wordings

#: The stages of a chain, in their order.
STAGES = ("ul2", "length_adaptation", "bilingual_flan")
# So many instructions are held out to be asked, and no more than a tenth.
_ASKED = 100
_STEPS = 8
# Of the seeds of worlds: instructions are about documents that are no texts to train on.
_OTHER = 1 << 32

# What the tiny recipes are told so that answers are right after minutes. A model of few features
# finds where answers stand far sooner if embedding and output layer are two matrices.
_SMALL = {
    "tied": False, "shape.hidden_size": 96, "shape.kv_channels": 24, "shape.ffn_hidden_size": 192,
    "shape.encoder_layers": 1, "shape.decoder_layers": 2, "optimizer.lr": 3e-3, "loop.steps": 400,
}  # fmt: skip
_LONGER = {"tied": False, "loop.steps": 50}
_ANSWERING = {
    "tied": False, "optimizer.lr": 2e-3, "loop.steps": 1500, "loop.validate_every_steps": 100,
    "schedule": ScheduleConfig(kind="cosine", warmup_steps=50, final_share=0.1),
}  # fmt: skip


@dataclass(kw_only=True, slots=True, frozen=True)
class ChainConfig:
    """What the steps of a chain are told; the defaults are a small model, minutes on two cores.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range.

    Example:
        >>> ChainConfig().bilingual_flan.stage
        'bilingual_flan'
    """

    documents: Annotated[int, Between(10, 2**31 - 1)] = 6000
    """Of a generated world; where files are given there is none."""
    rows: Annotated[int, Between(10, 2**31 - 1)] = 20_000
    """Of tasks, of a generated world."""
    seed: Annotated[int, Between(0, 2**64 - 1)] = 0
    """Of a generated world."""
    cleaning: CleanConfig = field(
        # The sentences of a generated world are short, and few enough to come again.
        default_factory=lambda: CleanConfig(minimum_words=3, duplicate_paragraphs=False)
    )
    """Rules of cleaning."""
    instructions: InstructionConfig = field(default_factory=lambda: InstructionConfig(ratio="none"))
    """How rows of tasks are mixed."""
    ul2: TrainConfig = field(default_factory=lambda: change(tiny(), _SMALL))
    """The first stage."""
    length_adaptation: TrainConfig = field(
        default_factory=lambda: change(tiny_length_adaptation(), _LONGER)
    )
    """The second stage."""
    bilingual_flan: TrainConfig = field(default_factory=lambda: change(tiny_flan(), _ANSWERING))
    """The third stage."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(kw_only=True, slots=True, frozen=True)
class ChainInputs:
    """Files that a chain begins with.

    Example:
        >>> files = {"texts": ("a.txt",), "rows": ("a.jsonl",), "templates": "t.json"}
        >>> ChainInputs(**files, tokenizer="spiece.model").texts
        ('a.txt',)
    """

    texts: tuple[str, ...]
    """As `clean_files` takes them."""
    rows: tuple[str, ...]
    """Rows of tasks, as `write_instructions` takes them."""
    templates: str
    """Of the tasks."""
    tokenizer: str
    """A SentencePiece file, or the folder of a tokenizer."""


@dataclass(kw_only=True, slots=True, frozen=True)
class ChainAnswer:
    """An instruction that was held out, and what the model answered.

    Example:
        >>> ChainAnswer(task="place", source="Where?", target="Kelp", answer="Kelp").is_right
        True
    """

    task: str
    source: str
    """What was asked."""
    target: str
    """The right answer."""
    answer: str
    """What the model wrote."""

    @property
    def is_right(self) -> bool:
        """Whether it wrote the right answer, and nothing else."""
        return self.answer == self.target


@dataclass(kw_only=True, slots=True, frozen=True)
class ChainResult:
    """What a chain came to."""

    folder: Path
    """Holds the folders of all steps."""
    stages: dict[str, TrainResult]
    """By stage."""
    answers: tuple[ChainAnswer, ...]
    """To instructions that were held out of all stages."""
    reply: str | None
    """To the prompt, where one was given."""

    @property
    def right(self) -> int:
        """How many answers are right."""
        return sum(answer.is_right for answer in self.answers)


def run_chain(
    config: ChainConfig,
    out: str | os.PathLike[str],
    inputs: ChainInputs | None = None,
    *,
    prompt: str | None = None,
    resume: bool = True,
    tell: Callable[[str], object] | None = None,
    progress: bool = False,
) -> ChainResult:
    """Returns what a chain came to: from texts and rows of tasks to a model that answers.

    The folder gets `clean`, `packed`, `instructions.jsonl` and a folder for each of three stages,
    the last of which, `bilingual_flan`, holds the model; `chain.json` says what they were made
    from. A chain that was killed goes on with the step that it was at, and ends with the same
    weights.

    Source: OpenBA (arXiv 2309.10706), section 4.1.

    Args:
        config: what the steps are told.
        out: the folder; it is made if it does not exist.
        inputs: the files to begin with; None: a generated world, which is written too.
        prompt: what the model is asked at the end, next to instructions that were held out.
        resume: whether to go on from what the folder holds; otherwise all steps start anew.
        tell: called with a line when a step is done.
        progress: whether training shows bars on standard error.

    Raises:
        FileExistsError: the folder holds what another chain made, or another process makes one.
        OSError: a file cannot be read or written.
        ValueError: a file cannot be used, or there is too little of it; as for the steps.

    Example:
        >>> import tempfile
        >>> from lmcore.training.config import change
        >>> stages = ("ul2", "length_adaptation", "bilingual_flan")
        >>> sizes = {"shape.hidden_size": 8, "shape.ffn_hidden_size": 8, "batch_size": 2,
        ...          "loop.steps": 1, "schedule.warmup_steps": 0, "validation_texts": 1}
        >>> small = {f"{stage}.{name}": size for stage in stages for name, size in sizes.items()}
        >>> config = change(ChainConfig(documents=100, rows=20), small)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     list(run_chain(config, folder).stages)
        ['ul2', 'length_adaptation', 'bilingual_flan']
    """
    for stage in STAGES:  # what no stage can be trained with is to be said before texts are cleaned
        recipe: TrainConfig = getattr(config, stage)
        find_device(recipe.device.device)
        try:
            check_schedule(recipe.schedule, recipe.loop.steps)
        except ValueError as error:
            raise ValueError(f"{stage}: {error}") from None
    if inputs is not None:
        _check_inputs(inputs)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder, doing="running a chain").hold():
        _take_recipe(folder, config, inputs, resume=resume)
        if inputs is None:
            inputs = _write_world(config, folder / "world")
        steps = _Steps(config, folder, inputs, resume, tell or (lambda line: None), progress)
        # All data come first, so that what cannot be used is said before hours of training.
        cleaned = steps.clean()
        texts = {stage: steps.pack_texts(stage, cleaned) for stage in STAGES[:2]}
        instructions = steps.pack_instructions(STAGES[2])
        steps.train("ul2", *texts["ul2"], before=None)
        steps.train("length_adaptation", *texts["length_adaptation"], before="ul2")
        steps.train("bilingual_flan", *instructions[:2], before="length_adaptation")
        return steps.ask(instructions[2], prompt)


class _Steps:
    """The steps of a chain in its folder."""

    def __init__(
        self,
        config: ChainConfig,
        folder: Path,
        inputs: ChainInputs,
        resume: bool,
        tell: Callable[[str], object],
        progress: bool,
    ) -> None:
        self.config, self.folder, self.inputs, self.resume = config, folder, inputs, resume
        self._tell, self.progress, self.told = tell, progress, 0
        self.tokenizer = load_tokenizer(inputs.tokenizer)
        self.stages: dict[str, TrainResult] = {}
        (folder / "packed").mkdir(exist_ok=True)

    def tell(self, line: str) -> None:
        """Says that a step is done, with its number."""
        self.told += 1
        self._tell(f"{self.told}/{_STEPS} {line}")

    def clean(self) -> list[Path]:
        """The cleaned texts."""
        place = self.folder / "clean"
        done = clean_files(self.inputs.texts, place, self.config.cleaning, resume=self.resume)
        self.tell(f"clean: {done.kept_documents} of {done.documents} documents kept")
        return [place / name for name in done.outputs]

    def pack_texts(self, stage: str, texts: Sequence[Path]) -> tuple[Any, Any]:
        """Packs texts in the length of a stage: those to train on, and those of validation."""
        config: TrainConfig = getattr(self.config, stage)
        name, length = self.folder / "packed" / stage, config.text_length
        done = pack_files(texts, self.tokenizer, name, length=length, resume=self.resume)
        table = IndexedDataset(name).table
        assert table is not None
        last = _hold_out(len(table), config.validation_texts, f"{name}.idx", "groups")
        self.tell(f"pack: {done.groups} texts of {done.length} tokens")
        return table[:-last], table[-last:]

    def pack_instructions(self, stage: str) -> tuple[Pairs, Pairs, list[Any]]:
        """Makes instructions and packs them: to train on, of validation, and rows to be asked."""
        rows, name = self.folder / "instructions.jsonl", self.folder / "packed" / stage
        done = write_instructions(
            self.inputs.rows, self.inputs.templates, rows, self.config.instructions
        )
        shares = ", ".join(f"{share:.0%} {language}" for language, share in done.languages.items())
        self.tell(f"instructions: {done.rows} rows, {shares}")
        packed = pack_pairs([rows], self.tokenizer, name, resume=self.resume)
        most = (getattr(self.config, stage).validation_texts, _ASKED)
        valid, asked = (
            _hold_out(packed.pairs, each, os.fspath(rows), "rows", least=3) for each in most
        )
        texts = [parse_json(line) for line in rows.read_text(encoding="utf-8").splitlines()]
        items = [*map(IndexedDataset(name).__getitem__, range(packed.pairs))]
        stop = len(items) - valid - asked
        # A question may come again, in the same words: it is not trained on where it is held out.
        held = {text["source"] for text in texts[stop:]}
        kept = [items[place] for place in range(stop) if texts[place]["source"] not in held]
        if not kept:
            raise ValueError(f"{rows}: no row is left to train on, apart from those held out")
        self.tell(f"pack: {len(kept)} pairs, and {asked} that will be asked")
        return _join(kept), _join(items[stop : stop + valid]), texts[-asked:]

    def train(self, stage: str, data: Any, valid: Any, *, before: str | None) -> None:
        """Trains a stage from the model of the one before."""
        config: TrainConfig = getattr(self.config, stage)
        done = train(
            config,
            data,
            self.folder / stage,
            tokenizer=self.tokenizer,
            valid=valid,
            model=None if before is None else self.folder / before,
            resume=self.resume,
            progress=self.progress,
        )
        self.stages[stage] = done
        self.tell(f"train {stage}: {done.steps} steps, {config.loop.metric} {done.best_value:.4f}")

    def ask(self, rows: Sequence[Any], prompt: str | None) -> ChainResult:
        """Asks the last model the instructions that were held out, and the prompt."""
        place = self.config.bilingual_flan.device.device
        generate = load_generator(self.folder / "bilingual_flan", device=place)
        asked = [*(row["source"] for row in rows), *([] if prompt is None else [prompt])]
        found = [each.text.strip() for each in generate(asked)]
        return ChainResult(
            folder=self.folder,
            stages=self.stages,
            answers=tuple(
                ChainAnswer(
                    task=row["task"], source=row["source"], target=row["target"].strip(),
                    answer=answer,
                )
                for row, answer in zip(rows, found, strict=False)
            ),
            reply=None if prompt is None else found[-1],
        )  # fmt: skip


def _check_inputs(inputs: ChainInputs) -> None:
    """Raises for a name that is misspelt, before it is what the folder was made from."""
    for name in (*inputs.texts, *inputs.rows):
        if not is_standard(name):
            Path(name).stat()
    read_templates(inputs.templates)
    load_tokenizer(inputs.tokenizer)


def _take_recipe(
    folder: Path, config: ChainConfig, inputs: ChainInputs | None, *, resume: bool
) -> None:
    """Refuses a folder of another chain; what each stage is told it compares itself."""
    lengths = {stage: getattr(config, stage).text_length for stage in STAGES[:2]}
    files = None if inputs is None else {
        "texts": list(inputs.texts), "rows": list(inputs.rows),
        "templates": inputs.templates, "tokenizer": inputs.tokenizer,
    }  # fmt: skip
    made = {
        "inputs": files,
        "world": {"documents": config.documents, "rows": config.rows, "seed": config.seed},
        "cleaning": config_to_dict(config.cleaning),
        "instructions": config_to_dict(config.instructions),
        "lengths": lengths,
    }
    take_recipe(folder / "chain.json", Recipe(config=made), resume=resume)


def _hold_out(count: int, most: int, name: str, what: str, *, least: int = 2) -> int:
    """How many items at the end are no training data: a tenth, and no more than `most`."""
    if count < least:
        raise ValueError(
            f"{name}: expected at least {least} {what}, of which some are held out: got {count}"
        )
    return max(1, min(most, count // 10))


def _join(items: Sequence[Any]) -> Pairs:
    return Pairs([item.source for item in items], [item.target for item in items])


def _write_world(config: ChainConfig, folder: Path) -> ChainInputs:
    """A generated world, with what cleaning takes away: links, and documents that come twice."""
    folder.mkdir(exist_ok=True)
    lines = []
    for index, text in enumerate(make_world(config.seed, documents=config.documents).texts):
        link = f" https://www.example.org/{index}" if index % 10 == 3 else ""
        lines += [text + link] * (2 if index % 8 == 5 else 1)
    write_text(folder / "texts.txt", "".join(f"{line}\n" for line in lines))
    tasks = make_instructions((config.seed + _OTHER) % (1 << 64), rows=config.rows)
    write_text(folder / "rows.jsonl", tasks.to_text())
    write_text(
        folder / "templates.json",
        json.dumps({task: [*map(dict, own)] for task, own in TEMPLATES.items()}, ensure_ascii=False)
        + "\n",
    )
    write_piece_file(folder / "spiece.model", texts=list_wordings())
    names = ("texts.txt", "rows.jsonl", "templates.json", "spiece.model")
    texts, own, templates, pieces = (os.fspath(folder / name) for name in names)
    return ChainInputs(texts=(texts,), rows=(own,), templates=templates, tokenizer=pieces)


__all__ = ["ChainAnswer", "ChainConfig", "ChainInputs", "ChainResult", "run_chain"]
