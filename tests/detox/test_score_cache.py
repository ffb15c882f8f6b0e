"""Scores that are kept: once for each scorer and text, whole after a kill, in several processes."""

import os
import signal
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import check_line, run_here
from lmcore.detox import CachedScorer, LexiconScorer
from tiny_scorers import write_jsonl


class Counting:
    """A scorer that remembers what it was asked."""

    def __init__(self, key: str = "counting") -> None:
        self.key = key
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> list[float]:
        self.asked += texts
        return [len(text) % 7 / 7 for text in texts]


@settings(max_examples=15)
@given(st.lists(st.text(max_size=8), max_size=20))
def test_each_text_is_scored_once(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("cache") / "scores"
    scorer = Counting()
    cached = CachedScorer(scorer, path)
    for _ in range(2):
        assert cached(texts).tolist() == [len(text) % 7 / 7 for text in texts]
    assert scorer.asked == list(dict.fromkeys(texts))


def test_hostile_texts_and_many(tmp_path: Path) -> None:
    texts = ["\ud800", "'; DROP TABLE scores; --", "\x00", "a" * 10**6, *map(str, range(2000))]
    scorer = Counting()
    for _ in range(2):
        found = CachedScorer(scorer, tmp_path / "scores")(texts)
        assert found.tolist() == [len(text) % 7 / 7 for text in texts]
    assert len(scorer.asked) == len(texts)


def test_what_was_scored_before_a_kill_is_kept(tmp_path: Path) -> None:
    class Dying(Counting):
        batch_size = 2

        def __call__(self, texts: Sequence[str]) -> list[float]:
            if len(self.asked) == 4:
                raise KeyboardInterrupt
            return super().__call__(texts)

    texts = [str(number) for number in range(7)]
    with pytest.raises(KeyboardInterrupt):
        CachedScorer(Dying(), tmp_path / "scores")(texts)
    scorer = Counting()
    CachedScorer(scorer, tmp_path / "scores")(texts)
    assert scorer.asked == texts[4:]


def test_scorers_are_told_apart(tmp_path: Path) -> None:
    one, other = Counting("one"), Counting("other")
    for scorer in (one, other, one):
        CachedScorer(scorer, tmp_path / "scores")(["a"])
    assert (one.asked, other.asked) == (["a"], ["a"])
    with pytest.raises(ValueError, match="needs a key"):
        CachedScorer(lambda texts: [0.0] * len(texts), tmp_path / "scores")


def test_bad_scores_are_not_kept(tmp_path: Path) -> None:
    for answer in ([float("nan")], [2.0], [], [0.1, 0.2]):
        bad = CachedScorer(lambda _, answer=answer: answer, tmp_path / "scores", key="k")  # type: ignore[misc]
        with pytest.raises(ValueError, match="scorer"):
            bad(["a"])
    assert CachedScorer(lambda _: [0.5], tmp_path / "scores", key="k")(["a"]).tolist() == [0.5]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_kill_loses_no_row_that_was_kept(tmp_path: Path) -> None:
    """A process that is killed within a transaction leaves the rows before it."""
    path = tmp_path / "scores"
    CachedScorer(Counting(), path)(["before"])
    child = os.fork()
    if not child:
        file = sqlite3.connect(path, isolation_level=None)
        file.execute("BEGIN IMMEDIATE")
        file.execute("PRAGMA cache_spill = 1")
        file.executemany(
            "INSERT INTO scores VALUES (?, 0.9)", [(os.urandom(20),) for _ in range(20000)]
        )
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    scorer = Counting()
    CachedScorer(scorer, path)(["before", "after"])
    assert scorer.asked == ["after"]
    with sqlite3.connect(path) as file:
        assert file.execute("SELECT count(*) FROM scores").fetchone() == (2,)
    file.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "scores"
    children = []
    for number in range(3):
        child = os.fork()
        if not child:
            code = 1
            try:
                cached = CachedScorer(Counting(), path)
                for part in range(20):
                    texts = [str(part * 10 + (number + n) % 15) for n in range(15)]
                    assert cached(texts).tolist() == [len(text) % 7 / 7 for text in texts]
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    scorer = Counting()
    CachedScorer(scorer, path)([str(number) for number in range(200)])
    assert scorer.asked == []


def test_foreign_and_broken_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "lexicon.txt").write_text("blap\n")
    texts = write_jsonl(tmp_path / "texts.jsonl", [{"text": "a blap"}])

    def score(cache: Path) -> tuple[int, str, str]:
        given = ["--scorer", tmp_path / "lexicon.txt", "--cache", cache]
        return run_here("detox", "score", texts, *given)

    (tmp_path / "text").write_text("no file of scores, and longer than a header " * 50)
    check_line(score(tmp_path / "text"), "text: not a file of scores")
    with sqlite3.connect(tmp_path / "other") as file:
        file.execute("CREATE TABLE scores (a)")
    file.close()
    check_line(score(tmp_path / "other"), "other: not a file of scores: another application")
    check_line(score(tmp_path), "Is a directory")
    check_line(score(tmp_path / "no" / "such"), "No such file")
    own = tmp_path / "own"
    assert score(own)[0] == 0
    with sqlite3.connect(own) as file:
        file.execute("UPDATE scores SET score = 7")
    file.close()
    check_line(score(own), "own: holds a score that is no number from 0 to 1")
    content = bytearray(own.read_bytes())
    content[4096:] = b"\xff" * len(content[4096:])
    own.write_bytes(content)
    check_line(score(own), "own: not a file of scores")
    assert texts.read_text() == '{"text": "a blap"}\n'


def test_words_come_through(tmp_path: Path) -> None:
    cached = CachedScorer(LexiconScorer(["blap"]), tmp_path / "scores")
    assert [word.word for word in cached.explain("a blap")] == ["blap"]
    with pytest.raises(ValueError, match="does not say which words"):
        CachedScorer(Counting(), tmp_path / "scores").explain("a")
