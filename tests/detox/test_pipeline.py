"""Files through the steps: what rows hold, what is counted, and that all steps are one by one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from commands import check_line, run_here, run_warm
from lmcore.detox import (
    ContinuationSampling,
    ContinueStep,
    FillStep,
    MaskStep,
    RephraseRule,
    SelectStep,
    TextContinuer,
    evaluate_file,
    make_chains,
    run_steps,
)
from lmcore.detox.steps import Step
from tiny_chains import make_gpt2
from tiny_detox import WORDS, make_finder, save_segment_cnn
from tiny_fillers import ListFiller, make_filler, make_words, save


class KnownScorer:
    """Toxic words of `tiny_detox`; its key lets a run go on."""

    key = "words"

    def __call__(self, texts: Sequence[str]) -> list[float]:
        return [0.9 if {"fool", "bad"} & set(text.lower().split()) else 0.1 for text in texts]


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_continuer(**sampling: Any) -> TextContinuer:
    tokenizer = make_words("gpt2")
    sampling = {"samples": 3, "max_new_tokens": 4} | sampling
    return TextContinuer(make_gpt2(tokenizer), tokenizer, ContinuationSampling(**sampling))


def make_steps(size: int = 8) -> list[Step]:
    scorer = KnownScorer()
    return [
        MaskStep(finder=make_finder(), form="text"),
        FillStep(filler=make_filler(batch_size=size), scorer=scorer, seed=1),
        ContinueStep(continuer=make_continuer(batch_size=size), seed=2),
        SelectStep(scorer=scorer),
    ]


PROMPTS: list[Any] = [
    {"prompt": {"text": "You are a fool so", "toxicity": 0.9}}, {"prompt": "you are nice"},
    {"text": "a bad person"}, {"prompt": "bad", "toxicity": 0.8},
    {"prompt": {"text": "so bad", "toxicity": 0.2}}, {"prompt": "e"},
]  # fmt: skip


def test_all_steps(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", PROMPTS), tmp_path / "out.jsonl"
    done = run_steps(make_steps(), source, target)
    rows = read(target)
    assert [row["masks"] for row in rows] == [1, 0, 1, 0, 0, 0]
    assert rows[0]["masked"] == "You are <MASK>"
    assert [row["rephrased"] is None for row in rows] == [False, True, False, True, True, True]
    # One token has no pair, so nothing is masked; and the fifth passes by its own score.
    assert [row["clean"] for row in rows] == [True, True, True, False, False, True]
    assert done.counts["missed"] == 2
    assert all(len(row["generations"]) == len(row["scores"]) == 3 for row in rows)
    assert [len(row["generation"]) for row in rows[3:5]] == [0, 0]
    for row in rows[:3]:
        assert set(row["generation"]) <= set(row["generations"])
        assert ("recover_prompt" in row) == (row["masks"] > 0)
        assert row.get("recover_prompt") == row["rephrased"]
    assert rows[2]["prompt"] == rows[2]["text"]
    assert [row.get("toxicity") for row in rows] == [0.9, None, None, 0.8, 0.2, None]
    counts = done.counts
    assert (counts["masked"], counts["rephrased"], counts["passed"]) == (2, 2, 1)
    assert (counts["samples"], counts["left_out"], counts["selected"]) == (18, 2, 4)
    # Two commands take the rows as they are.
    values = evaluate_file(target).values
    assert (values["samples"], values["rephrased_prompts"]) == (18, 2)
    chains = make_chains(target, tmp_path / "chains.jsonl")
    assert (chains.toxic, chains.non_toxic, chains.left_out) == (2, 2, {"no_generation": 2})


def test_one_step_after_the_other_is_all_at_once(tmp_path: Path) -> None:
    """And neither the sizes of blocks nor those of batches matter."""
    source, target = write(tmp_path / "in.jsonl", PROMPTS * 3), tmp_path / "out.jsonl"
    run_steps(make_steps(), source, target)
    for number, step in enumerate(make_steps(size=2)):
        run_steps([step], source, tmp_path / f"{number}.jsonl", block_rows=5)
        source = tmp_path / f"{number}.jsonl"
    assert source.read_bytes() == target.read_bytes()


def test_prompts_that_are_not_filled_are_marked(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", PROMPTS[:3]), tmp_path / "out.jsonl"
    judge, filler = KnownScorer(), ListFiller(None, "bad")
    mask, _, go_on, select = make_steps()

    def scorer(texts: Sequence[str]) -> list[float]:
        return judge(texts)

    rule = RephraseRule(attempts=1)
    fill = FillStep(filler=filler, scorer=scorer, rule=rule)  # type: ignore[arg-type]
    done = run_steps([mask, fill, go_on, select], source, target)
    first, clean, _ = read(target)
    assert (first["rephrased"], first["attempts"], first["clean"]) == (None, 1, False)
    assert (first["generations"], first["scores"], first["generation"]) == ([], [], [])
    assert len(clean["generations"]) == 3
    names = ("unfilled", "lost_mask", "not_continued", "left_out", "without_samples")
    assert [done.counts[name] for name in names] == [2, 2, 2, 2, 2]
    # With a text that is not clean, the prompt is continued, and no chain is made.
    fill.rule = RephraseRule(attempts=2)
    done = run_steps([mask, fill, go_on, select], source, target, resume=False)
    first, clean, _ = read(target)
    assert (first["rephrased"], first["attempts"], first["clean"]) == ("You are bad", 2, False)
    assert (len(first["generations"]), first["generation"]) == (3, [])
    assert (done.counts["unclean"], done.counts["left_out"]) == (2, 2)


def test_a_stopped_run_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [" ".join(WORDS[(k * j) % 8] for j in range(1, k % 5 + 3)) for k in range(14)]
    source = write(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    run_steps(make_steps(), source, whole, block_rows=4)
    steps, calls = make_steps(), 0
    assert isinstance(steps[2], ContinueStep)
    go_on = steps[2].continuer.go_on

    def stop(*given: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return go_on(*given, **options)

    monkeypatch.setattr(steps[2].continuer, "go_on", stop)
    with pytest.raises(KeyboardInterrupt):
        run_steps(steps, source, parts, block_rows=4)
    assert not parts.exists()
    changed = make_steps()
    assert isinstance(changed[1], FillStep)
    changed[1].seed = 5
    with pytest.raises(FileExistsError):
        run_steps(changed, source, parts, block_rows=4)
    done = run_steps(make_steps(), source, parts, block_rows=4)
    assert (done.rows, done.resumed_rows) == (14, 8)
    assert parts.read_bytes() == whole.read_bytes()


def test_a_scorer_without_a_key_begins_anew(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", PROMPTS[:2]), tmp_path / "out.jsonl"
    rows = [{"prompt": "a", "generations": ["b"]}] * 3
    source = write(tmp_path / "in.jsonl", rows)
    scores = [0.1, 0.1]

    def scorer(texts: Sequence[str]) -> list[float]:
        return [scores.pop()]

    with pytest.raises(IndexError):
        run_steps([SelectStep(scorer=scorer)], source, target, block_rows=1)
    scores += [0.2, 0.3, 0.4]
    done = run_steps([SelectStep(scorer=scorer)], source, target, block_rows=1)
    assert done.resumed_rows == 0
    assert [row["scores"] for row in read(target)] == [[0.4], [0.3], [0.2]]


@pytest.mark.parametrize(
    ("step", "row", "message"),
    [
        (0, {"id": 1}, "has no text and no prompt"),
        (0, {"prompt": {"text": " "}}, "prompt.text is empty"),
        (0, {"prompt": "a", "masks": 1}, "masks stands in the row, and would be written over"),
        (0, {"prompt": "a", "toxicity": 2}, "toxicity must be a number from 0 to 1: got 2"),
        (1, {"prompt": "a"}, "masked is missing"),
        (1, {"prompt": "a", "masked": 1}, "masked must be a text"),
        (1, {"prompt": "a", "masked": "<MASK>", "masks": 10**30}, "masks is not the number of"),
        (1, {"prompt": "a", "masked": "<MASK>", "masks": True}, "masks must be a whole number"),
        (1, {"prompt": "a", "masked": "<mask> <MASK>"}, "has 1 masks, and the filler reads 2"),
        (1, {"prompt": "a", "masked": "you " * 99 + "<MASK>"}, "has 102 tokens and a text up to"),
        (2, {"prompt": "a", "masked": "<MASK>"}, "has masks, and no rephrased text"),
        (2, {"prompt": "a", "rephrased": " "}, "rephrased must be a text that is not empty"),
        (2, {"prompt": "a", "generation": ["b"]}, "generation stands in the row"),
        (2, {"prompt": "a " * 200}, "has 201 tokens and a continuation up to 4"),
        (3, {"prompt": "a"}, "has neither generations nor scores"),
        (3, {"prompt": "a", "scores": [0.1]}, "scores stands in the row"),
        (3, {"prompt": "a", "generations": [1]}, "generations[0] must be a text: got 1"),
        (3, {"prompt": "a", "text": "b", "generations": ["c"]}, "prompt is another text than"),
        (3, {"prompt": "a", "generations": ["c"], "cont_toxicity": []}, "cont_toxicity stands"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used(
    tmp_path: Path, steps: list[Step], step: int, row: Any, message: str
) -> None:
    source, target = write(tmp_path / "in.jsonl", [row]), tmp_path / "out.jsonl"
    with pytest.raises(ValueError, match=r"in\.jsonl:1: ") as raised:
        run_steps([steps[step]], source, target)
    assert str(raised.value).startswith(f"{source}:1: {message}")
    assert not target.exists()
    done = run_steps([steps[step]], source, target, skip_bad_rows=True)
    assert (done.rows, done.bad_rows) == (0, 1)


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    return make_steps()


def test_rows_that_a_later_step_cannot_use(tmp_path: Path, steps: list[Step]) -> None:
    rows = [*PROMPTS[:2], {"text": "you " * 170 + "e"}, {"text": "<mask> you bad so"}]
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    done = run_steps(steps, source, target, skip_bad_rows=True)
    assert (done.rows, done.bad_rows) == (2, 2)
    assert done.listed_bad_rows == [
        f"{source}:3: has 172 tokens and a continuation up to 4, and the model has 160 positions",
        f"{source}:4: has 1 masks, and the filler reads 2: <mask> stands in the text itself",
    ]
    with pytest.raises(ValueError, match=r"in\.jsonl:3: has "):
        run_steps(steps, source, target, resume=False)


def test_rows_with_scores_of_their_own(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "generations": ["b", "c"], "scores": [0.9, 0.2]},
        {"prompt": "a", "generation": [{"text": "b", "toxicity": 0.4}]},
        {"prompt": "a", "generations": []},
        {"prompt": {"text": "a", "toxicity": 0.6}, "generations": ["b"], "scores": [0.1]},
        {"prompt": "a", "toxicity": 0.5, "generations": ["b"], "scores": [0.1]},
    ]
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    done = run_steps([SelectStep()], source, target)
    found = read(target)
    assert [row["generation"] for row in found] == [["c", "b"], ["b"], [], [], ["b"]]
    assert [row["cont_toxicity"] for row in found] == [[0.2, 0.9], [0.4], [], [], [0.1]]
    names = ("selected", "without_samples", "left_out")
    assert [done.counts[name] for name in names] == [3, 1, 1]
    source = write(tmp_path / "in.jsonl", [{"prompt": "a", "generations": ["b"]}])
    with pytest.raises(ValueError, match=r"in\.jsonl:1: has no scores: name a scorer$"):
        run_steps([SelectStep()], source, target, resume=False)


# Commands.


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("models")
    (folder / "toxic.txt").write_text("fool\nbad\n")
    found: dict[str, Any] = {kind: save(kind, folder / kind) for kind in ("bart", "t5", "gpt2")}
    return found | {
        "spans": save_segment_cnn(folder / "spans"), "toxic": folder / "toxic.txt",
    }  # fmt: skip


def run_all(places: dict[str, Any], source: Path, target: Path, **options: Any) -> list[Any]:
    models = ["--spans", places["spans"], "--filler", places["bart"], "--model", places["gpt2"]]
    more = ["--scorer", places["toxic"], "--device", "cpu", "--threads", "1", "--samples", "2"]
    named = [part for name, value in options.items() for part in (f"--{name}", value)]
    return ["detox", "run", source, target, *models, *more, "--form", "text", *named]


def test_commands(tmp_path: Path, places: dict[str, Any]) -> None:
    source, target = write(tmp_path / "in.jsonl", PROMPTS), tmp_path / "out.jsonl"
    code, output, errors = run_here(*run_all(places, source, target))
    assert (code, output) == (0, ""), errors
    assert "6 rows, 0 skipped\n" in errors
    assert "2 prompts are toxic, and nothing in them is masked: marked\n" in errors
    # One after the other.
    names = ["masked", "filled", "continued", "selected"]
    masked, filled, continued, selected = (tmp_path / f"{name}.jsonl" for name in names)
    device = ["--device", "cpu", "--threads", "1"]
    judge = ["--scorer", places["toxic"]]
    for line in (
        ["mask", source, masked, "--model", places["spans"], "--form", "text", *device],
        ["fill", masked, filled, "--filler", places["bart"], *judge, *device],
        ["continue", filled, continued, "--model", places["gpt2"], "--samples", "2", *device],
        ["select", continued, selected, *judge],
    ):
        code, output, errors = run_here("detox", *line)
        assert (code, output) == (0, ""), errors
    assert selected.read_bytes() == target.read_bytes()
    code, output, errors = run_here("detox", "chains", target, tmp_path / "chains.jsonl")
    assert code == 0, errors
    code, output, errors = run_here("detox", "evaluate", target, "--json")
    assert code == 0, errors
    assert json.loads(output)["samples_per_prompt"] == 2


def test_plain_lines(tmp_path: Path, places: dict[str, Any]) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("You are a fool so\nyou are nice\n")
    options = ["--model", places["spans"], "--device", "cpu", "--quiet"]
    code, _, errors = run_here("detox", "mask", source, target, *options)
    assert code == 0, errors
    assert [row["masks"] for row in read(target)] == [1, 0]


def test_a_killed_command_goes_on_to_the_same_bytes(tmp_path: Path, places: dict[str, Any]) -> None:
    rows = [PROMPTS[k % 3] for k in range(40)]
    source, whole, parts = (tmp_path / f"{name}.jsonl" for name in ("in", "whole", "parts"))
    write(source, rows)
    assert run_here(*run_all(places, source, whole, attempts=1))[0] == 0
    kill = (
        "import os, signal\n"
        "from lmcore.detox.continuing import TextContinuer\n"
        "from lmcore._row_stream import RowStream\n"
        "def begin(self, *given, old=RowStream.__init__, **options):\n"
        "    old(self, *given, save_seconds=0, **options)\n"
        "RowStream.__init__ = begin\n"
        "calls = []\n"
        "def go_on(self, *given, old=TextContinuer.go_on, **options):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return old(self, *given, **options)\n"
        "TextContinuer.go_on = go_on\n"
    )
    code, _, _ = run_warm(*run_all(places, source, parts, attempts=1), code=kill)
    assert (code, parts.exists()) == (-9, False)
    code, _, errors = run_here(*run_all(places, source, parts, attempts=2))
    assert code == 2
    assert str(parts) in errors
    code, _, errors = run_here(*run_all(places, source, parts, attempts=1))
    assert "40 rows, 32 of them before, 0 skipped\n" in errors
    assert parts.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"top-p": "0"}, "top_p must be "),
        ({"temperature": "0"}, "temperature must be "),
        ({"filler": "NOWHERE"}, "nowhere: no such folder of a model"),
        ({"filler": "gpt2"}, "a filler must be an encoder-decoder: got a GPT2LMHeadModel"),
        ({"model": "NOWHERE"}, "nowhere: no such folder of a model"),
        ({"spans": "gpt2"}, "gpt2"),
        ({"scorer": "NOWHERE"}, "no scorer "),
        ({"similarity": "NOWHERE"}, "nowhere: no such folder of a model"),
        ({"precision": "x"}, "precision must be one of"),
        ({"format": "x"}, "format must be one of"),
    ],
)
def test_commands_that_cannot_be(
    tmp_path: Path, places: dict[str, Any], options: dict[str, str], text: str
) -> None:
    source, target = write(tmp_path / "in.jsonl", PROMPTS), tmp_path / "out.jsonl"
    named = {"NOWHERE": tmp_path / "nowhere", **places}
    given = {name: named.get(value, value) for name, value in options.items()}
    check_line(run_here(*run_all(places, source, target, **given)), text)
    assert not target.exists()


def test_select_commands(tmp_path: Path, places: dict[str, Any]) -> None:
    row = {"prompt": "a", "generations": ["bad", "so"]}
    source, target = write(tmp_path / "in.jsonl", [row]), tmp_path / "out.jsonl"
    line = ["detox", "select", source, target]
    check_line(run_here(*line, "--label", "x"), "options of a scorer need --scorer")
    check_line(run_here(*line, "--device", "cpu"), "--device goes with a model: got the device")
    check_line(run_here(*line), "in.jsonl:1: has no scores: name a scorer")
    cache = tmp_path / "scores.sqlite"
    code, _, errors = run_here(*line, "--scorer", places["toxic"], "--cache", cache)
    assert code == 0, errors
    assert cache.exists()
    assert read(target)[0]["scores"] == [1.0, 0.0]
