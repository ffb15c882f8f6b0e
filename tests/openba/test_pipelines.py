"""Many tasks make what one process makes of the same texts, whatever is killed between."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dill
import numpy as np
import pytest
from datatrove.data import Document
from hypothesis import given, settings
from hypothesis import strategies as st

import warm
from lmcore.compression.counting import count_files
from lmcore.compression.pipelines import CountTokens, MergeCounts
from lmcore.openba import IndexedDataset, OpenBATokenizer, clean_files, pack_files
from lmcore.openba.cleaning import CleanConfig, clean_texts
from lmcore.openba.pipelines import (
    DropDuplicates,
    FindDuplicates,
    PackTexts,
    ReadTasks,
    ReadTexts,
    SignTexts,
    Stage,
    chain_stages,
    make_stages,
    run_stage,
)
from lmcore.openba.task_files import TaskFolder
from lmcore.worlds.openba import make_world, write_piece_file

CONFIG = CleanConfig(minimum_words=3, duplicate_paragraphs=False)
LENGTH = 50
NUMBERS = """{{"documents": 1, "groups": 1, "tokens": 50, "remainder": {1}, "bad_rows": 0,
    "listed_bad_rows": [], "vocabulary_size": 9, "dtype": "uint16", "length": {0}}}"""
OPTIONS: dict[str, Any] = {"tasks": 3, "partitions": 2, "config": CONFIG, "length": LENGTH}
# All that happens in a group of its own, so that all of it can be killed.
RUN = """
import os, sys
os.setsid()
def refuse(event, arguments):
    is_local = event == "socket.connect" and isinstance(arguments[1], (str, bytes))
    if event in ("socket.connect", "socket.getaddrinfo") and not is_local:
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(refuse)
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from lmcore.openba.cleaning import CleanConfig
from lmcore.openba.pipelines import make_stages

class Slow(PipelineStep):
    type = name = "slow"
    seconds = float(sys.argv[2])
    def run(self, data, rank=0, world_size=1):
        from time import sleep
        for document in data:
            sleep(self.seconds)
            yield document

rules = CleanConfig(minimum_words=3, duplicate_paragraphs=False)
options = {"tasks": 3, "partitions": 2, "config": rules, "length": 50}
for stage in make_stages("texts", sys.argv[1], "s.model", **options):
    steps = [*stage.steps[:1], *[Slow()] * (stage.name in ("clean", "pack")), *stage.steps[1:]]
    LocalPipelineExecutor(
        steps, tasks=stage.tasks, workers=2, logging_dir=f"logs-{sys.argv[1]}/{stage.name}",
        start_method=sys.argv[3],
    ).run()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files of texts with what is cleaned, and with duplicates within and among them."""
    monkeypatch.chdir(tmp_path)
    write_piece_file("s.model")
    (tmp_path / "texts").mkdir()
    common = list(make_world(9, documents=8).texts)
    for number, name in enumerate("abc"):
        own = list(make_world(number, documents=25).texts)
        own[3] = f"{own[3]} See https://a.org/b for it."
        (tmp_path / f"texts/{name}.txt").write_text(
            "\n".join([*own, *common, "Go!", own[0], *common[:2]]) + "\n", encoding="utf-8"
        )
    return tmp_path


def read_lines(name: str) -> list[str]:
    return [line for line in Path(f"texts/{name}.txt").read_text().splitlines() if line]


def distinct_texts() -> list[list[str]]:
    """The clean texts of each file that did not stand before."""
    seen: set[str] = set()
    parts = []
    for name in "abc":
        kept = []
        for text in clean_texts(read_lines(name), CONFIG).texts:
            if text is not None and text not in seen:
                kept.append(text)
                seen.add(text)
        parts.append(kept)
    return parts


def expected_ids(texts: list[str]) -> list[int]:
    tokenizer = OpenBATokenizer("s.model")
    found = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return [token for ids in found if ids for token in (*ids, tokenizer.eos_token_id)]


def take_all(**changes: Any) -> None:
    for stage in make_stages("texts", "out", "s.model", **{**OPTIONS, **changes}):
        run_stage(stage)


def contents(folder: str) -> dict[str, bytes]:
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_tasks_make_the_groups_of_one_process(folder: Path) -> None:
    """Those of each task first, and then those of what all of them left."""
    take_all()
    groups: list[list[int]] = []
    rest: list[int] = []
    for texts in distinct_texts():
        ids = expected_ids(texts)
        end = len(ids) // LENGTH * LENGTH
        groups += np.reshape(ids[:end], (-1, LENGTH)).tolist()
        rest += ids[end:]
    end = len(rest) // LENGTH * LENGTH
    assert end
    groups += np.reshape(rest[:end], (-1, LENGTH)).tolist()
    data = IndexedDataset("out/corpus", vocabulary_size=len(OpenBATokenizer("s.model")))
    assert data.table is not None
    assert data.table.tolist() == groups
    numbers = json.loads(Path("out/corpus.json").read_text())
    assert numbers["remainder"] == rest[end:]
    assert numbers["groups"] == len(groups)
    assert numbers["documents"] == sum(map(len, distinct_texts()))


def test_texts_are_those_of_the_command(folder: Path) -> None:
    """`lmcore openba clean` reads one file after the other; here three tasks read one each."""
    take_all()
    clean_files([f"texts/{name}.txt" for name in "abc"], "one", CONFIG)
    for number, name in enumerate("abc"):
        rows = Path(f"out/texts/{number:05d}.jsonl").read_text(encoding="utf-8").splitlines()
        texts = [json.loads(row)["text"] for row in rows]
        assert texts == Path(f"one/{name}.txt").read_text(encoding="utf-8").splitlines()
    report = json.loads(Path("one/report.json").read_text())
    found = json.loads(Path("out/clean.json").read_text())
    assert found["rules"] == {
        name: {"documents": count["documents"], "characters": count["characters"]}
        for name, count in report["rules"].items()
    }


def test_one_task_packs_as_the_command(folder: Path) -> None:
    take_all(tasks=1, partitions=1)
    texts = [text for part in distinct_texts() for text in part]
    Path("all.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    pack_files(["all.txt"], OpenBATokenizer("s.model"), "one", length=LENGTH)
    for ending in ("bin", "idx", "json"):
        assert Path(f"out/corpus.{ending}").read_bytes() == Path(f"one.{ending}").read_bytes()


def test_rules_are_counted_over_all_tasks(folder: Path) -> None:
    take_all()
    texts = [text for name in "abc" for text in read_lines(name)]
    cleaned = clean_texts(texts, CONFIG)
    kept = [text for text in cleaned.texts if text is not None]
    left = [text for part in distinct_texts() for text in part]
    found = json.loads(Path("out/clean.json").read_text())
    assert found["documents"] == len(texts)
    assert found["bad_rows"] == 0
    duplicates = found["rules"].pop("duplicate_documents")
    assert duplicates["documents"] == len(kept) - len(left) > 20
    assert duplicates["characters"] == sum(map(len, kept)) - sum(map(len, left))
    assert found["rules"] == {
        name: {"documents": count.documents, "characters": count.characters}
        for name, count in cleaned.counts.items()
    }
    assert found["rules"]["links"]["documents"] == 3


@pytest.mark.parametrize("by", ["group", "language"])
def test_counts_are_those_of_the_command(folder: Path, by: str) -> None:
    files = [f"texts/{name}.txt" for name in "abc"]
    count_files(files, "s.model", "one.counts", by=by)
    steps = [ReadTexts("texts", "read"), CountTokens("s.model", "tokens", by=by)]
    run_stage(Stage(name="count", steps=steps, tasks=2))
    run_stage(Stage(name="sum", steps=[MergeCounts("tokens", "all.counts")], tasks=1))
    assert Path("all.counts").read_bytes() == Path("one.counts").read_bytes()


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "c", "é", ""]), max_size=8), min_size=1),
    st.integers(1, 4),
)
def test_the_first_of_equal_texts_stays(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[str]], partitions: int
) -> None:
    root = tmp_path_factory.mktemp("parts")

    def make(task: int) -> Iterator[Any]:
        yield from (Document(text=text, id=str(n)) for n, text in enumerate(parts[task]))

    for task in range(len(parts)):
        for _ in SignTexts(root / "signed", partitions=partitions)(make(task), task, len(parts)):
            pass
    for partition in range(partitions):
        FindDuplicates(root / "signed", root / "found")(None, partition, partitions)
    drop = DropDuplicates(root / "found", root / "counts")
    found = [[d.id for d in drop(make(task), task, len(parts))] for task in range(len(parts))]
    seen: set[str] = set()
    for texts, ids in zip(parts, found, strict=True):
        wanted = []
        for number, text in enumerate(texts):
            if text not in seen:
                wanted.append(str(number))
            seen.add(text)
        assert ids == wanted


def run_all(out: str, wait: float, method: str = "fork") -> "warm.Process | subprocess.Popen[str]":
    return warm.start(RUN, out, wait, method)


def count_files_of(out: str) -> int:
    return sum(path.suffix in (".jsonl", ".sig", ".bin") for path in Path(out).rglob("[0-9]*"))


def test_killed_pipelines_go_on_to_the_same_bytes(folder: Path) -> None:
    """Two workers at once; all processes of the group are killed, several times."""
    whole = subprocess.run(
        [sys.executable, "-c", RUN, "whole", "0", "forkserver"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert whole.returncode == 0, whole.stderr
    kills = 0
    for wait in (0.02, 0.01):
        process = run_all("killed", wait)
        before, end = count_files_of("killed"), time.monotonic() + 60
        while process.poll() is None and count_files_of("killed") < before + 2:
            assert time.monotonic() < end
            time.sleep(0.005)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate(timeout=60)
    assert kills == 2
    assert not Path("killed/corpus.bin").exists()
    process = run_all("killed", 0.0)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert contents("killed") == contents("whole")
    assert "corpus.bin" in contents("killed")
    # All is done: nothing is touched.
    before = {path: path.stat().st_mtime_ns for path in Path("killed").rglob("*.*")}
    process = run_all("killed", 0.0)
    process.communicate(timeout=120)
    assert {path: path.stat().st_mtime_ns for path in Path("killed").rglob("*.*")} == before


def test_a_task_that_ends_early_leaves_nothing_that_looks_whole(folder: Path) -> None:
    clean = make_stages("texts", "out", "s.model", **OPTIONS)[0]

    def stop(data: Any, rank: int, world_size: int) -> Iterator[Any]:
        for number, document in enumerate(data):
            if number == 20:
                raise OSError("the machine is gone")
            yield document

    with pytest.raises(OSError, match="the machine is gone"):
        run_stage(Stage(name="clean", steps=[*clean.steps, stop], tasks=3))
    assert not count_files_of("out")
    with pytest.raises(FileNotFoundError, match=r"task 0 of 3 is not done.*00000\.jsonl"):
        list(ReadTasks("out/cleaned")(None, 0, 3))


def test_two_processes_never_write_one_file(tmp_path: Path) -> None:
    folder = TaskFolder(tmp_path / "a", ".txt")
    folder.begin(1, {})
    with folder.write(0) as file:
        file.write(b"one")
        with (
            pytest.raises(FileExistsError, match=r"00000\.txt: another process is writing it"),
            folder.write(0),
        ):
            pass
    assert folder.find(0).read_bytes() == b"one"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": 2}, "out: was begun with tasks 3, and 2 was given now: give the same, or name"),
        ({"partitions": 1}, "out: was begun with partitions 2, and 1 was given now"),
        ({"length": 40}, "out: was begun with length 50, and 40 was given now"),
        ({"config": CONFIG.without("links")}, 'out: was begun with config .*"links": true'),
    ],
)  # fmt: skip
def test_a_folder_goes_on_as_it_was_begun(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    make_stages("texts", "out", "s.model", **OPTIONS)
    make_stages("texts", "out", "s.model", **OPTIONS)
    with pytest.raises(FileExistsError, match=message):
        make_stages("texts", "out", "s.model", **{**OPTIONS, **changes})


def test_inputs_stay_the_same(folder: Path) -> None:
    make_stages("texts", "out", "s.model", **OPTIONS)
    with Path("texts/a.txt").open("a") as file:
        file.write("One more text is here.\n")
    with pytest.raises(FileExistsError, match="out: was begun with files"):
        make_stages("texts", "out", "s.model", **OPTIONS)


def test_steps_alone_know_their_tasks_too(folder: Path) -> None:
    """Where a number of tasks is another than that of the stage before, or of an earlier start."""
    stages = {stage.name: stage for stage in make_stages("texts", "out", "s.model", **OPTIONS)}
    run_stage(stages["clean"])
    with pytest.raises(FileExistsError, match="read: was begun with tasks 3, and 4 was given now"):
        list(stages["clean"].steps[0](None, 0, 4))
    with pytest.raises(ValueError, match=r"cleaned: its files are of 3 tasks: .*, got 2"):
        list(ReadTasks("out/cleaned")(None, 0, 2))
    with pytest.raises(ValueError, match=r"it has 2 partitions: .* got 3"):
        FindDuplicates("out/signatures", "out/found")(None, 0, 3)
    with pytest.raises(FileNotFoundError, match="out/duplicates"):
        run_stage(stages["pack"])
    FindDuplicates("out/signatures", "out/duplicates")(None, 0, 2)
    with pytest.raises(FileNotFoundError, match="00001"):
        run_stage(stages["pack"])
    with pytest.raises(FileNotFoundError, match="out/groups"):
        run_stage(stages["merge"])


def test_what_is_not_there_is_said_before_a_task_starts(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        make_stages("nowhere", "out", "s.model", **OPTIONS)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        make_stages(["texts/a.txt", "nowhere.txt"], "out", "s.model", **OPTIONS)
    Path("empty").mkdir()
    Path("empty/.hidden").touch()
    with pytest.raises(ValueError, match="empty: there are no files in it"):
        make_stages("empty", "out", "s.model", **OPTIONS)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.model"):
        make_stages("texts", "out", "nowhere.model", **OPTIONS)
    with pytest.raises(ValueError, match="not a tokenizer"):
        make_stages("texts", "out", "texts", **OPTIONS)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        CountTokens("nowhere", "counts")
    with pytest.raises(ValueError, match="duplicate_paragraphs must be false"):
        make_stages("texts", "out", "s.model", **{**OPTIONS, "config": CleanConfig()})
    for name, value in (("tasks", 0), ("tasks", 100_000), ("partitions", -1), ("length", 0)):
        with pytest.raises(ValueError, match=f"{name} must be from 1 to"):
            make_stages("texts", "out", "s.model", **{**OPTIONS, name: value})
    assert not Path("out").exists()


def test_bad_rows_are_errors_or_counted(folder: Path) -> None:
    Path("rows.jsonl").write_text('{"text": "It is a text."}\n{"text": 1}\n{"text": "\\ud800"}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: expected a text under 'text', got 1"):
        list(ReadTexts("rows.jsonl", "read")())
    found = list(ReadTexts("rows.jsonl", "counted", skip_bad_rows=True)())
    assert [(document.text, document.id) for document in found] == [
        ("It is a text.", "rows.jsonl:1")
    ]
    numbers = json.loads(Path("counted/00000.json").read_text())
    assert (numbers["documents"], numbers["bad_rows"]) == (1, 2)
    assert numbers["listed_bad_rows"][1].startswith("rows.jsonl:3: ")


def test_more_tasks_than_files_have_nothing_to_do(folder: Path) -> None:
    take_all(tasks=5, partitions=3)
    several = IndexedDataset("out/corpus")
    assert len(several) == sum(len(expected_ids(part)) for part in distinct_texts()) // LENGTH
    assert json.loads(Path("out/groups/00004.json").read_text())["groups"] == 0


def test_a_damaged_part_is_refused(folder: Path) -> None:
    take_all()
    data = Path("out/groups/00001.bin")
    data.write_bytes(data.read_bytes()[:-2])
    merge = make_stages("texts", "out", "s.model", **OPTIONS)[-1]
    with pytest.raises(ValueError, match=r"00001\.bin: expected \d+ bytes"):
        run_stage(merge)
    Path("out/signatures/00000/00000.sig").write_bytes(b"1234567")
    with pytest.raises(ValueError, match=r"00000\.sig: damaged"):
        FindDuplicates("out/signatures", "out/duplicates")(None, 0, 2)


def test_a_tokenizer_that_changes_is_noticed(folder: Path) -> None:
    steps = [PackTexts("s.model", "groups"), CountTokens("s.model", "counts")]
    write_piece_file("s.model", size=4000)
    for step in steps:
        with pytest.raises(ValueError, match=r"s\.model: has changed since the pipeline was made"):
            list(step(iter(()), 0, 1) or ())


def test_executors_are_chained(folder: Path) -> None:
    """On this machine, by Slurm, and by Ray; there is no cluster here, so that none is run."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.executor.ray import RayPipelineExecutor
    from datatrove.executor.slurm import SlurmPipelineExecutor

    stages = make_stages("texts", "out", "s.model", **OPTIONS)
    kinds: list[tuple[Any, dict[str, Any]]] = [
        (LocalPipelineExecutor, {"workers": 2}),
        (SlurmPipelineExecutor, {"time": "10:00:00", "partition": "cpu", "workers": 2}),
        (RayPipelineExecutor, {"workers": 2, "mem_per_cpu_gb": 4}),
    ]
    for kind, options in kinds:
        last = made = chain_stages(stages, kind, f"logs/{kind.__name__}", **options)
        for stage in reversed(stages):
            assert (made.world_size, made.pipeline) == (stage.tasks, stage.steps)
            assert made.logging_dir.path == os.fspath(folder / "logs" / kind.__name__ / stage.name)
            made = made.depends
        assert made is None
        # What executors that start elsewhere hand over.
        assert dill.loads(dill.dumps(last)).world_size == 1


def test_logs_of_other_stages_are_refused(folder: Path) -> None:
    """An executor would find all done, and do nothing."""
    from datatrove.executor import LocalPipelineExecutor

    for out in ("out", "other"):
        stages = make_stages("texts", out, "s.model", **OPTIONS)
        if out == "out":
            chain_stages(stages, LocalPipelineExecutor, "logs")
            chain_stages(stages, LocalPipelineExecutor, "logs", workers=1)
            continue
        with pytest.raises(FileExistsError, match="logs: was begun with stages"):
            chain_stages(stages, LocalPipelineExecutor, "logs")
    fewer = make_stages("texts", "third", "s.model", **{**OPTIONS, "tasks": 2})
    with pytest.raises(FileExistsError, match="logs: was begun with tasks 3, and 2 was given now"):
        chain_stages(fewer, LocalPipelineExecutor, "logs")
    with pytest.raises(ValueError, match="give at least one stage"):
        chain_stages([], LocalPipelineExecutor, "logs")


def test_inputs_and_outputs_are_apart(folder: Path) -> None:
    with pytest.raises(ValueError, match="texts/out: the outputs must not lie in the folder of"):
        make_stages("texts", "texts/out", "s.model", **OPTIONS)
    with pytest.raises(ValueError, match=r"texts/a\.txt: an input must not lie in the folder of"):
        make_stages(["texts/a.txt"], "texts", "s.model", **OPTIONS)
    assert contents("texts").keys() == {"a.txt", "b.txt", "c.txt"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("cleaned/tasks.json", "{", "not a recipe of tasks"),
        ("cleaned/tasks.json", '{"tasks": true}', "it must hold their number"),
        ("cleaned/tasks.json", '{"tasks": 1000000000}', "got 1000000000 of them"),
        ("cleaned/00000.jsonl", '{"text": "a"}\n', r"00000\.jsonl:1: expected a text and an id"),
        ("duplicates/tasks.json", '{"tasks": 3}', "duplicates: it is no folder of duplicates"),
        ("rules/00001.json", '{"links": 3}', r"00001\.json: not the counts of a task"),
        ("read/00001.json", "[]", r"00001\.json: not the counts of a task"),
        ("groups/00001.json", "{}", r"00001\.json: not the numbers of a packed text"),
        ("groups/00000.json", NUMBERS.format(0, "[]"), r"00000\.json: not the numbers of a packed"),
        ("groups/00000.json", NUMBERS.format(50, '["a"]'), r"00000\.json: not the numbers of a"),
        ("groups/00000.json", NUMBERS.format(40, "[]"), r"00000\.bin: its tokens are not those"),
    ],
)
def test_broken_files_are_named(folder: Path, file: str, content: str, message: str) -> None:
    take_all()
    Path(f"out/{file}").write_text(content, encoding="utf-8")
    pack, merge = make_stages("texts", "out", "s.model", **OPTIONS)[2:]
    with pytest.raises(ValueError, match=message):
        run_stage(pack if file.startswith(("cleaned", "duplicates")) else merge)
