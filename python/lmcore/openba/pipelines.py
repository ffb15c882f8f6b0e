"""Texts cleaned and packed by many tasks at once, as steps of datatrove's pipelines.

A pipeline is a list of steps; an executor of datatrove runs it in so many tasks, on this machine
(`LocalPipelineExecutor`), or by Slurm or Ray on many that share a file system. Each task reads its
share of the files, and leaves one file in each folder that it writes (`task_files`): a task that
was killed is started again, and leaves the same bytes.

What a pipeline needs of all tasks together is a pipeline of its own, behind it: `make_stages` lists
them in their order. Source: OpenBA-V2 (arXiv 2405.05957), its section on data, at scale.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmcore.openba.cleaning import CleanConfig
from lmcore.openba.task_duplicates import DropDuplicates, FindDuplicates, SignTexts
from lmcore.openba.task_files import write_recipe
from lmcore.openba.task_groups import MergeGroups, PackTexts
from lmcore.openba.task_texts import CleanTexts, MergeRules, ReadTasks, ReadTexts, WriteTexts


@dataclass(kw_only=True, slots=True, frozen=True)
class Stage:
    """A pipeline, which an executor of datatrove runs when the one before is done."""

    name: str
    steps: list[Any]
    tasks: int
    """How many it must be run in."""
    out: str = ""
    """Where it writes; `chain_stages` takes the logs of another folder for none of its own."""


def make_stages(
    files: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    out: str | os.PathLike[str],
    tokenizer: str | os.PathLike[str],
    *,
    tasks: int,
    partitions: int = 1,
    config: CleanConfig | None = None,
    length: int = 568,
    form: str = "auto",
    skip_bad_rows: bool = False,
) -> list[Stage]:
    """Returns the pipelines that make one token file of files: clean, find duplicates, pack, merge.

    The folder gets `plan.json` at once, and from the stages `cleaned`, `signatures`, `duplicates`,
    `texts` and `groups` with a file of each task, and last `corpus.bin`, `corpus.idx` and
    `corpus.json`, which `lmcore openba train` takes, and `clean.json`, the counts of each rule.
    Of equal texts the first one stays, in the order of tasks.

    Args:
        files: text files (a line is a document), JSONL (`text`), parquet (column `text`), or a
            folder of such. Task k of n gets every n-th of them, from the k-th on.
        out: the folder, which all tasks reach.
        tokenizer: a SentencePiece file, or the folder of a tokenizer.
        tasks: how many share the files.
        partitions: how many share the search for duplicates: each holds about 70 bytes in memory
            for each of its texts.
        config: the rules; `duplicate_paragraphs` is none of a pipeline.
        length: tokens of a group.
        form: of the files: `auto`, `text`, `jsonl` or `parquet`.
        skip_bad_rows: count documents that cannot be used instead of raising.

    Raises:
        FileExistsError: the folder was begun from other files, in another number of tasks, or
            with other settings.
        ImportError: datatrove is not installed.
        OSError: a file or the tokenizer cannot be read, or the folder cannot be written.
        ValueError: there is no file, it is no tokenizer, or an argument is out of its range.

    Example:
        >>> import tempfile
        >>> from lmcore.openba import IndexedDataset
        >>> from lmcore.worlds.openba import make_world, write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pieces, text = Path(folder, "spiece.model"), Path(folder, "a.txt")
        ...     _ = write_piece_file(pieces), text.write_text(make_world(0, documents=20).to_text())
        ...     config = CleanConfig(minimum_words=3, duplicate_paragraphs=False)
        ...     options = {"tasks": 1, "config": config, "length": 50}
        ...     stages = make_stages([text], Path(folder, "out"), pieces, **options)
        ...     for stage in stages:
        ...         run_stage(stage)
        ...     groups = len(IndexedDataset(Path(folder, "out/corpus")))
        >>> [stage.name for stage in stages], groups > 9
        (['clean', 'duplicates', 'pack', 'merge'], True)
    """
    folder = Path(out)
    config = config or CleanConfig(duplicate_paragraphs=False)
    if config.duplicate_paragraphs:
        raise ValueError("duplicate_paragraphs must be false: a pipeline finds whole texts alone")
    for name, number, most in (
        ("tasks", tasks, 99_999), ("partitions", partitions, 9_999), ("length", length, 2**31 - 1)
    ):  # fmt: skip
        if type(number) is not int or not 1 <= number <= most:
            raise ValueError(f"{name} must be from 1 to {most}: got {number!r:.40}")
    reader = ReadTexts(files, folder / "read", form=form, skip_bad_rows=skip_bad_rows)
    pack = PackTexts(tokenizer, folder / "groups", length=length)
    _keep_apart(reader.files, files, folder)
    folder.mkdir(parents=True, exist_ok=True)
    plan = {
        "tasks": tasks, "partitions": partitions, "config": asdict(config), "length": length,
        "tokenizer": pack.digest, "files": reader.stamps, "skip_bad_rows": skip_bad_rows,
    }  # fmt: skip
    write_recipe(folder / "plan.json", plan)
    clean: list[Any] = [
        reader, CleanTexts(config, folder / "rules"), WriteTexts(folder / "cleaned"),
    ]  # fmt: skip
    second: list[Any] = [ReadTasks(folder / "cleaned")]
    name = os.fspath(folder.resolve())
    stages = [Stage(name="clean", steps=clean, tasks=tasks, out=name)]
    if config.duplicate_documents:
        signatures, found = folder / "signatures", folder / "duplicates"
        clean.append(SignTexts(signatures, partitions=partitions))
        finder = FindDuplicates(signatures, found)
        stages.append(Stage(name="duplicates", steps=[finder], tasks=partitions, out=name))
        second += [DropDuplicates(found, folder / "dropped"), WriteTexts(folder / "texts")]
    stages.append(Stage(name="pack", steps=[*second, pack], tasks=tasks, out=name))
    rules = [folder / name for name in ("rules", "dropped")[: 1 + config.duplicate_documents]]
    merge = [
        MergeGroups(folder / "groups", folder / "corpus"),
        MergeRules(folder / "read", rules, folder / "clean.json"),
    ]
    stages.append(Stage(name="merge", steps=merge, tasks=1, out=name))
    return stages


def chain_stages(
    stages: Sequence[Stage], executor: Any, logging_dir: str | os.PathLike[str], **options: Any
) -> Any:
    """Returns the executor of the last stage, whose `run` runs those before first.

    Args:
        stages: of `make_stages`.
        executor: a class of datatrove: `LocalPipelineExecutor`, `SlurmPipelineExecutor` or
            `RayPipelineExecutor`.
        logging_dir: folder that gets a folder of each stage, which knows what tasks are done, and
            `stages.json`.
        options: of the executor, such as `workers`, how many tasks run at once.

    Raises:
        FileExistsError: the folder is that of other stages, or of another number of tasks.
        OSError: the folder cannot be written.
        ValueError: there is no stage.

    Example:
        >>> import tempfile
        >>> from datatrove.executor import LocalPipelineExecutor
        >>> stages = [Stage(name=name, steps=[], tasks=2) for name in ("one", "two")]
        >>> with tempfile.TemporaryDirectory() as logs:
        ...     last = chain_stages(stages, LocalPipelineExecutor, logs, workers=1)
        >>> last.tasks, last.depends.logging_dir.path.rpartition("/")[2]
        (2, 'one')
    """
    if not stages:
        raise ValueError("give at least one stage: got none")
    logs = Path(logging_dir)
    logs.mkdir(parents=True, exist_ok=True)
    known = [[stage.name, stage.tasks, stage.out] for stage in stages]
    # An executor would take what is done of other stages for these.
    write_recipe(logs / "stages.json", {"tasks": stages[0].tasks, "stages": known})
    last = None
    for stage in stages:
        folder = os.fspath(Path(logging_dir, stage.name))
        last = executor(stage.steps, tasks=stage.tasks, depends=last, logging_dir=folder, **options)
    return last


def run_stage(stage: Stage) -> None:
    """Returns nothing once a stage is run in this process, one task after the other.

    For a try: an executor of datatrove runs several tasks at once, and none that is done.

    Args:
        stage: one of `make_stages`.

    Raises:
        Exception: what a step raises.

    Example:
        >>> run_stage(Stage(name="nothing", steps=[], tasks=1))
    """
    for task in range(stage.tasks):
        data: Any = None
        for step in stage.steps:
            data = step(data, task, stage.tasks)
        for _ in data or ():
            pass


def _keep_apart(files: Sequence[str], given: Any, out: Path) -> None:
    """No input is written, and no output is read when the folder is listed once more."""
    place = out.resolve()
    if isinstance(given, str | os.PathLike) and place.is_relative_to(Path(given).resolve()):
        raise ValueError(f"{out}: the outputs must not lie in the folder of the inputs")
    for file in files:
        if Path(file).resolve().is_relative_to(place):
            raise ValueError(f"{file}: an input must not lie in the folder of the outputs")


__all__ = [
    "CleanTexts", "DropDuplicates", "FindDuplicates", "MergeGroups", "MergeRules", "PackTexts",
    "ReadTasks", "ReadTexts", "SignTexts", "Stage", "WriteTexts", "chain_stages", "make_stages",
    "run_stage",
]  # fmt: skip
