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
from lmcore.openba.cleaned_files import clean_files
from lmcore.openba.cleaning import CleanConfig
from lmcore.openba.generation import load_generator
from lmcore.openba.indexed import IndexedDataset
from lmcore.openba.instructions import InstructionConfig, write_instructions
from lmcore.openba.packing import pack_files
from lmcore.openba.pair_packing import pack_pairs
from lmcore.openba.pairs import Pairs
from lmcore.openba.recipes import TrainConfig, tiny, tiny_flan, tiny_length_adaptation
from lmcore.openba.tokenization_openba import load_tokenizer
from lmcore.openba.training import TrainResult, train
from lmcore.training.config import Between, check_fields, config_to_dict
from lmcore.training.folder import Recipe
from lmcore.training.manifest import read_recipe
from lmcore.training.optimizer import check_schedule
from lmcore.training.processes import find_device
from lmcore.worlds.openba import TEMPLATES, generate_rows, make_world, write_piece_file

#: The stages of a chain, in their order.
STAGES = ("ul2", "length_adaptation", "bilingual_flan")
# So many of the held-out instructions the model is asked.
_ANSWERED = 32


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
    rows: Annotated[int, Between(10, 2**31 - 1)] = 2000
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
    ul2: TrainConfig = field(default_factory=tiny)
    """The first stage."""
    length_adaptation: TrainConfig = field(default_factory=tiny_length_adaptation)
    """The second stage."""
    bilingual_flan: TrainConfig = field(default_factory=tiny_flan)
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
class ChainResult:
    """What a chain came to."""

    folder: Path
    """Holds the folders of all steps."""
    stages: dict[str, TrainResult]
    """By stage."""
    prompt: str
    """What the model was asked last."""
    answer: str
    """What it answered, in the form of a suffix that was taken away."""
    right: int
    """Held-out instructions whose answer is the target."""
    asked: int
    """Held-out instructions that it was asked."""


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
        prompt: what the model is asked at the end; None: the first of the held-out instructions.
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
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder, doing="running a chain").hold():
        _take_recipe(folder, config, inputs, resume=resume)
        if inputs is None:
            inputs = _write_world(config, folder / "world")
        steps = _Steps(config, folder, inputs, resume, tell or (lambda line: None), progress)
        texts = steps.clean()
        steps.train_on_texts("ul2", texts, None)
        steps.train_on_texts("length_adaptation", texts, "ul2")
        rows = steps.train_on_instructions("bilingual_flan", "length_adaptation")
        return steps.ask(rows[:_ANSWERED], prompt)


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
        self.tell, self.progress = tell, progress
        self.tokenizer = load_tokenizer(inputs.tokenizer)
        self.stages: dict[str, TrainResult] = {}
        (folder / "packed").mkdir(exist_ok=True)

    def clean(self) -> list[Path]:
        """The cleaned texts."""
        place = self.folder / "clean"
        done = clean_files(self.inputs.texts, place, self.config.cleaning, resume=self.resume)
        self.tell(f"clean: {done.kept_documents} of {done.documents} documents kept")
        return [place / name for name in done.outputs]

    def train_on_texts(self, stage: str, texts: Sequence[Path], before: str | None) -> None:
        """Packs texts in the length of a stage, and trains it."""
        config: TrainConfig = getattr(self.config, stage)
        name, length = self.folder / "packed" / stage, config.text_length
        done = pack_files(texts, self.tokenizer, name, length=length, resume=self.resume)
        self.tell(f"pack: {done.groups} groups of {done.length} tokens")
        table = IndexedDataset(name).table
        assert table is not None
        last = _hold_out(len(table), config.validation_texts, f"{name}.idx", "groups")
        self._train(stage, table[:-last], table[-last:], before)

    def train_on_instructions(self, stage: str, before: str) -> list[Any]:
        """Makes instructions of rows of tasks, packs and trains; those that were held out."""
        config: TrainConfig = getattr(self.config, stage)
        rows, name = self.folder / "instructions.jsonl", self.folder / "packed" / stage
        done = write_instructions(
            self.inputs.rows, self.inputs.templates, rows, self.config.instructions
        )
        shares = ", ".join(f"{share:.0%} {language}" for language, share in done.languages.items())
        self.tell(f"instructions: {done.rows} rows, {shares}")
        packed = pack_pairs([rows], self.tokenizer, name, resume=self.resume)
        self.tell(f"pack: {packed.pairs} pairs")
        items = [*map(IndexedDataset(name).__getitem__, range(packed.pairs))]
        last = _hold_out(len(items), config.validation_texts, os.fspath(rows), "rows")
        self._train(stage, _join(items[:-last]), _join(items[-last:]), before)
        lines = rows.read_text(encoding="utf-8").splitlines()
        return [parse_json(line) for line in lines[-last:]]

    def ask(self, rows: Sequence[Any], prompt: str | None) -> ChainResult:
        """Asks the last model the instructions that were held out, and before them the prompt."""
        place = self.config.bilingual_flan.device.device
        generate = load_generator(self.folder / "bilingual_flan", device=place)
        first = rows[0]["source"] if prompt is None else prompt
        found = generate([first, *(row["source"] for row in rows)])
        answers = [each.text.strip() for each in found]
        targets = [row["target"].strip() for row in rows]
        return ChainResult(
            folder=self.folder,
            stages=self.stages,
            prompt=first,
            answer=answers[0],
            right=sum(map(str.__eq__, answers[1:], targets)),
            asked=len(rows),
        )

    def _train(self, stage: str, data: Any, valid: Any, before: str | None) -> None:
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
        self.tell(f"{stage}: {done.steps} steps, {config.loop.metric} {done.best_value:.4f}")


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
    recipe, file = Recipe(config=made), folder / "chain.json"
    if resume and file.is_file():
        recipe.check(folder, read_recipe(file))
    write_text(file, json.dumps(recipe.to_dict(), ensure_ascii=False, indent=2) + "\n")


def _hold_out(count: int, most: int, name: str, what: str) -> int:
    """How many items at the end are for validation: a tenth, and no more than the settings say."""
    if count < 2:
        raise ValueError(f"{name}: expected at least 2 {what}, one of them held out: got {count}")
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
    # Of documents that are no texts to train on.
    rows = generate_rows(config.rows, config.seed, first=config.documents)
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(folder / "rows.jsonl", content)
    write_text(folder / "templates.json", json.dumps(TEMPLATES, ensure_ascii=False) + "\n")
    write_piece_file(folder / "spiece.model")
    names = ("texts.txt", "rows.jsonl", "templates.json", "spiece.model")
    texts, own, templates, pieces = (os.fspath(folder / name) for name in names)
    return ChainInputs(texts=(texts,), rows=(own,), templates=templates, tokenizer=pieces)


__all__ = ["ChainConfig", "ChainInputs", "ChainResult", "run_chain"]
