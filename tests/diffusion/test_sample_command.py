"""The command `lmcore diffusion sample`: files, kills, pages, and what it refuses."""

import gzip
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from browser import open_page
from commands import check_line, finish, run_here, start_warm
from lmcore._finished import FinishedOutput
from lmcore._row_stream import RowStream
from lmcore.diffusion import SamplingConfig, load_generator
from lmcore.diffusion.models import make_model, save_model
from lmcore.diffusion.outputs import name_outputs
from lmcore.diffusion.pairs import Pair
from lmcore.diffusion.samples import sample_files
from lmcore.worlds.diffusion import make_world
from stopped_runs import wait_for_change
from tiny_diffusion import make_tokenizer, small

SMALL = ["--threads", "1", "--device", "cpu", "--steps", "4", "--batch-size", "2", "--quiet"]
# The third batch waits for the signal that ends it.
SLOW = """
import time
import lmcore.diffusion.texts as texts
import lmcore._row_stream as row_stream
answer, batches = texts.TextGenerator.answer, []
def wait(*arguments, **options):
    batches.append(1)
    time.sleep(60 * (len(batches) > 2))
    return answer(*arguments, **options)
texts.TextGenerator.answer = wait
row_stream.RowStream.__init__.__kwdefaults__["save_seconds"] = 0.0
"""


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place: Path = tmp_path_factory.mktemp("model")
    torch.manual_seed(3)
    made = make_model(small(), make_tokenizer())
    made.config.row_length = 32
    save_model(made, make_tokenizer(), place)
    return place


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text(make_world(5, pairs=9).to_text())
    return tmp_path


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def sample(model: Path, *more: object, source: object = "in.jsonl", out: object = "out") -> Any:
    return run_here("diffusion", "sample", model, source, out, *SMALL, *more)


def test_files_of_seeds(folder: Path, model: Path) -> None:
    code, output, errors = sample(model, "--seeds", 3, "--seed", 7)
    assert (code, output) == (0, "")
    assert errors.startswith("27 rows sampled with 3 seeds, 0 skipped: 4 steps, ")
    names = [f"out.seed{seed}.jsonl" for seed in (7, 8, 9)]
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl", *names]
    pairs = read_rows("in.jsonl")
    texts = set()
    for name in names:
        rows = read_rows(name)
        assert [row["reference"] for row in rows] == [f"[CLS] {p['trg']} [SEP]" for p in pairs]
        assert [row["source"] for row in rows] == [f"[CLS] {p['src']} [SEP] [SEP]" for p in pairs]
        assert all([*row] == ["recover", "reference", "source"] for row in rows)
        texts.add(Path(name).read_text())
    assert len(texts) == 3
    before = {name: Path(name).read_bytes() for name in names}
    assert sample(model, "--seeds", 1, "--seed", 8, "--batch-size", 64, out="one")[0] == 0
    assert Path("one.seed8.jsonl").read_bytes() == before["out.seed8.jsonl"]
    generate = load_generator(model, SamplingConfig(steps=4), device="cpu")
    questions = generate.encode(Pair(row["src"], row["trg"]) for row in pairs)
    answers = generate.answer(questions, 7)
    recovered = [row["recover"] for row in read_rows("out.seed7.jsonl")]
    assert [generate.read(ids) for ids in answers] == recovered


def test_the_input_may_be_compressed_or_standard(folder: Path, model: Path) -> None:
    assert sample(model, "--seeds", 2)[0] == 0
    expected = [Path(f"out.seed{seed}.jsonl").read_bytes() for seed in (0, 1)]
    content = Path("in.jsonl").read_bytes()
    Path("in.jsonl.gz").write_bytes(gzip.compress(content))
    assert sample(model, "--seeds", 2, source="in.jsonl.gz", out="z.jsonl.gz")[0] == 0
    packed = [gzip.decompress(Path(f"z.seed{s}.jsonl.gz").read_bytes()) for s in (0, 1)]
    assert packed == expected
    with standard_input("in.jsonl"):
        code, output, errors = sample(model, source="-", out="-")
    assert (code, output.encode()) == (0, expected[0]), errors
    with standard_input("in.jsonl"):
        code, _, errors = sample(model, "--seeds", 2, "--html", "a.html", source="-", out="piped")
    assert code == 0, errors
    assert [Path(f"piped.seed{s}.jsonl").read_bytes() for s in (0, 1)] == expected
    assert "Rows of standard input, seed 0." in Path("a.html").read_text()
    Path("bad").write_text("{}")
    with standard_input("bad"):
        check_line(sample(model, "--seeds", 2, source="-"), "standard input:1: src is missing")


@contextmanager
def standard_input(path: str) -> Iterator[None]:
    """What this process reads there is a file."""
    before, descriptor = os.dup(0), os.open(path, os.O_RDONLY)
    os.dup2(descriptor, 0)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(descriptor)


def test_targets_may_be_missing(folder: Path, model: Path) -> None:
    assert sample(model)[0] == 0
    whole = read_rows("out.seed0.jsonl")
    rows = read_rows("in.jsonl")
    forms = {
        "a.jsonl": "".join(json.dumps({"src": row["src"]}) + "\n" for row in rows),
        "b.tsv": "".join(f"{row['src']}\n" for row in rows),
        "c.csv": "mr\n" + "".join(f"{row['src']}\n" for row in rows),
    }
    for name, text in forms.items():
        Path(name).write_text(text)
        assert sample(model, source=name, out=name)[0] == 0
        found = read_rows(f"{name.removesuffix('.jsonl')}.seed0.jsonl")
        assert found == [{**row, "reference": ""} for row in whole]


def test_references_are_grouped_on_request(folder: Path, model: Path) -> None:
    lines = ["the thief\tthe robber", "the thief\tthe robber was", "the old\t", "the thief\tthe"]
    Path("in.tsv").write_text("\n".join(lines))
    assert sample(model, source="in.tsv")[0] == 0
    each = read_rows("out.seed0.jsonl")
    assert [row["reference"] for row in each] == [
        "[CLS] the robber [SEP]", "[CLS] the robber was [SEP]", "", "[CLS] the [SEP]",
    ]  # fmt: skip
    assert each[0]["recover"] == each[1]["recover"] == each[3]["recover"]
    code, _, errors = sample(model, "--group-references", source="in.tsv", out="groups")
    assert (code, errors.split(":")[0]) == (0, "4 rows sampled with 1 seed, 0 skipped")
    grouped = read_rows("groups.seed0.jsonl")
    assert [row["references"] for row in grouped] == [
        ["[CLS] the robber [SEP]", "[CLS] the robber was [SEP]"], [], ["[CLS] the [SEP]"],
    ]  # fmt: skip
    assert [row["reference"] for row in grouped] == [
        "[CLS] the robber [SEP]",
        "",
        "[CLS] the [SEP]",
    ]
    assert [row["recover"] for row in grouped] == [each[n]["recover"] for n in (0, 2, 3)]


def test_what_is_cut_or_unknown_is_said(folder: Path, model: Path) -> None:
    rows = [{"src": "the thief " * 30, "trg": "the"}, {"src": "the xyzzy", "trg": "the " * 60}]
    Path("long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, errors = sample(model, "--seeds", 2, source="long.jsonl")
    assert code == 0
    assert "1 sources and 1 references do not fit into 32 positions, and lost 69 tokens" in errors
    assert "1 tokens are not in the vocabulary\n" in errors
    first, second = read_rows("out.seed1.jsonl")
    assert (first["truncated"], second["truncated"]) == (["source"], ["target"])
    assert second["reference"] == f"[CLS] {'the ' * 60}[SEP]"
    few = sample(model, "--schedule", "quadratic", "--steps", 30, out="few")
    assert "30 steps were asked for: of quadratic 2" in few[2]


def test_bad_rows_are_skipped_on_request(folder: Path, model: Path) -> None:
    good = Path("in.jsonl").read_text().splitlines()
    Path("bad.jsonl").write_text("\n".join([good[0], "[]", '{"trg": "a"}', *good[1:]]) + "\n")
    check_line(sample(model, source="bad.jsonl"), "bad.jsonl:2: expected a JSON object, got a list")
    code, _, errors = sample(model, "--skip-bad-rows", "--seeds", 2, source="bad.jsonl", out="some")
    assert code == 0
    assert errors.splitlines()[:2] == [
        "skipped bad.jsonl:2: expected a JSON object, got a list",
        "skipped bad.jsonl:3: src is missing",
    ]
    assert errors.splitlines()[2].startswith("18 rows sampled with 2 seeds, 2 skipped: ")
    assert sample(model)[0] == 0
    assert Path("some.seed0.jsonl").read_bytes() == Path("out.seed0.jsonl").read_bytes()


# Going on.


class Stop(BaseException):
    """Ends a run in the midst of it."""


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets so many batches through."""
    from lmcore.diffusion.texts import TextGenerator

    answer, left = TextGenerator.answer, [count]

    def limited(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Stop
        return answer(*arguments, **options)

    monkeypatch.setattr(TextGenerator, "answer", limited)


@pytest.mark.parametrize("batches", [0, 1, 5, 7, 14])
def test_a_stopped_run_goes_on(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    """Five batches a seed: within the first, the second, between them, and in the third."""
    generate = load_generator(model, SamplingConfig(steps=4, batch_size=2), device="cpu")
    sample_files(generate, "in.jsonl", "whole", seeds=[0, 1, 2])
    with monkeypatch.context() as patch:
        stop_after(batches, patch)
        with pytest.raises(Stop):
            sample_files(generate, "in.jsonl", "out", seeds=[0, 1, 2])
    stop_after(15 - batches, monkeypatch)
    done = sample_files(generate, "in.jsonl", "out", seeds=[0, 1, 2])
    assert sum(summary.sampled for summary in done.values()) == 27 - min(2 * batches, 99) + (
        batches // 5
    )
    assert {summary.rows for summary in done.values()} == {9}
    for seed in range(3):
        name = f"seed{seed}.jsonl"
        assert Path(f"out.{name}").read_bytes() == Path(f"whole.{name}").read_bytes()
    assert len([*folder.iterdir()]) == 7


def test_a_stopped_run_goes_on_behind_a_whole_batch(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batches are then those of a run that was not stopped."""
    generate = load_generator(model, SamplingConfig(steps=4, batch_size=4), device="cpu")
    write, written = RowStream.write, list[int]()

    def limited(*arguments: Any) -> None:
        write(*arguments)
        written.append(1)
        if len(written) == 6:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(RowStream, "write", limited)
        with pytest.raises(Stop):
            sample_files(generate, "in.jsonl", "out")
    assert sample_files(generate, "in.jsonl", "out")[0].resumed_rows == 4


def test_a_stopped_table_goes_on(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of its columns are read again; a group that was begun is made whole."""
    rows = [f"{row['src']},{row['trg']}" for row in read_rows("in.jsonl") for _ in range(3)]
    Path("in.csv").write_text("\n".join(["mr,ref", *rows]))
    generate = load_generator(model, SamplingConfig(steps=4, batch_size=2), device="cpu")
    options: dict[str, Any] = {"group_references": True}
    sample_files(generate, "in.csv", "whole", **options)
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(Stop):
            sample_files(generate, "in.csv", "out", **options)
    done = sample_files(generate, "in.csv", "out", **options)[0]
    assert (done.rows, done.resumed_rows, done.sampled) == (27, 12, 5)
    assert Path("out.seed0.jsonl").read_bytes() == Path("whole.seed0.jsonl").read_bytes()
    assert [len(row["references"]) for row in read_rows("out.seed0.jsonl")] == [3] * 9


def test_another_recipe_or_input_is_refused(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    generate = load_generator(model, SamplingConfig(steps=4, batch_size=2), device="cpu")
    with monkeypatch.context() as patch:
        stop_after(7, patch)
        with pytest.raises(Stop):
            sample_files(generate, "in.jsonl", "out", seeds=[0, 1])
    before = {path: path.read_bytes() for path in folder.iterdir()}
    more = ["--seeds", "2"]
    line = "start anew without resume"
    check_line(sample(model, *more, "--steps", 5), "out.seed0.jsonl: ", "another steps", line)
    check_line(sample(model, *more, "--solver", "ddim"), "made with another solver", line)
    check_line(sample(model, *more, "--no-clamp"), "made with another clamp", line)
    check_line(sample(model, *more, "--length", 30), "made with another length", line)
    check_line(sample(model, "--seed", 1, "--steps", 5), "out.seed1.jsonl: ", "another steps")
    other = folder / "other"
    save_model(make_model(small(), make_tokenizer()), make_tokenizer(), other)
    check_line(sample(other, *more, "--length", 32), "made with another model", line)
    content = Path("in.jsonl").read_text()
    Path("in.jsonl").write_text(content.replace("the", "a", 1))
    check_line(sample(model, *more), "made with another input", line)
    Path("in.jsonl").write_text(content)
    assert {path: path.read_bytes() for path in before} == before
    assert sample(model, *more)[0] == 0
    assert sample(model, *more, "--steps", 5)[0] == 0  # nothing is left of the run before


def test_a_run_that_was_written_over_says_so(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a command that starts anew while this one is at its second seed."""
    from lmcore.diffusion.texts import TextGenerator

    generate = load_generator(model, SamplingConfig(steps=4, batch_size=9), device="cpu")
    answer, batches = TextGenerator.answer, list[int]()

    def meet(*arguments: Any, **options: Any) -> Any:
        batches.extend([1] * bool(arguments[1]))
        if sum(batches) == 2:
            batches.append(9)
            other = sample(model, "--seeds", 2, "--steps", 5, "--no-resume")
            check_line(other, "out.seed1.jsonl: another process is writing it")
        return answer(*arguments, **options)

    monkeypatch.setattr(TextGenerator, "answer", meet)
    with pytest.raises(FileExistsError, match=r"out\.seed0\.jsonl: it is there, made with another"):
        sample_files(generate, "in.jsonl", "out", seeds=[0, 1])


def test_what_is_whole_is_looked_at(folder: Path) -> None:
    file = folder / "a.jsonl"
    file.write_text("{}")
    output = FinishedOutput(file, {"n": 1})
    assert output.load() is None
    output.save({"rows": 1})
    assert FinishedOutput(file, {"n": 1}).load() == {"rows": 1}
    with pytest.raises(FileExistsError, match="made with another n; start anew without resume"):
        FinishedOutput(file, {"n": 2}).load()
    file.write_text("{ }")
    assert output.load() is None
    file.write_text("{}")
    (record,) = folder.glob(".*.lmcore-done")
    for broken in ("[]", "{}", '{"recipe": 1, "output": "", "result": {}}', '{"a": 1, "a": 2}'):
        record.write_text(broken)
        with pytest.raises(ValueError, match=r"lmcore-done"):
            output.load()
    output.remove()
    output.remove()
    assert output.load() is None


@pytest.mark.alone
def test_killed_and_side_by_side(folder: Path, model: Path) -> None:
    arguments = ["diffusion", "sample", model, "in.jsonl", "out", *SMALL, "--seeds", 2]
    assert sample(model, "--seeds", 2, out="whole")[0] == 0
    process = start_warm(*arguments, code=SLOW)
    wait_for_change(lambda: [*folder.glob(".*.lmcore-state")], process, [])
    # The other one finds the file in the hands of the first.
    refused = sample(model, "--seeds", 2)
    check_line(refused, "out.seed0.jsonl: another process is writing it")
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    finish(process)
    assert not Path("out.seed1.jsonl").exists()
    code, _, errors = sample(model, "--seeds", 2)
    assert code == 0
    assert " of them before, 0 skipped: " in errors
    for seed in (0, 1):
        one, two = (Path(f"{out}.seed{seed}.jsonl").read_bytes() for out in ("out", "whole"))
        assert one == two


# The page.


@pytest.mark.parametrize("width", [1280, 390])
def test_page(folder: Path, model: Path, width: int) -> None:
    Path("in.jsonl").write_text(
        json.dumps({"src": "<script>alert(1)</script>" + "x" * 300, "trg": "the <b>"}) + "\n[]\n"
        + make_world(5, pairs=4).to_text()
    )  # fmt: skip
    code, _, errors = sample(model, "--html", "page.html", "--chain-rows", 2, "--skip-bad-rows")
    assert code == 0, errors
    page = Path("page.html").read_text(encoding="utf-8")
    assert page.count("<section>") == 2
    assert "<script" not in page
    assert "Rows of in.jsonl, seed 0." in page
    assert "4 of 60 steps, adaptive; ancestral; estimates rounded to words." in page
    recovered = [row["recover"] for row in read_rows("out.seed0.jsonl")]
    assert all(text.split()[1] in page for text in recovered[:2])
    measured = open_page(page, width, folder, ".verdict", "mark", "header b")
    assert (measured["problems"], measured["wide"], measured["scrolls"]) == ([], [], False)
    (left, top, right, bottom) = measured["places"][".verdict"][0]
    assert 0 <= left < right <= width
    assert 0 <= top < bottom < 300
    assert len(measured["places"]["mark"]) >= 2
    assert len(measured["places"]["header b"]) == 2


# What it refuses.


def test_bad_input_is_one_line(folder: Path, model: Path) -> None:
    Path("empty.jsonl").write_text("")
    Path("names.csv").write_text("src,trg\n")
    Path("other.csv").write_text("a,b\n1,2\n")
    Path("folder").mkdir()
    before = sorted(folder.iterdir())
    for arguments, texts in (
        ({"source": "none"}, ["none: No such file or directory"]),
        ({"source": "empty.jsonl"}, ["empty.jsonl: the file holds no rows"]),
        ({"source": "names.csv"}, ["names.csv: the file holds no rows"]),
        ({"source": "other.csv"}, ["other.csv:1: expected columns src and trg, or mr and ref"]),
        ({"source": "folder"}, ["folder: Is a directory"]),
        ({"out": "folder/"}, ["folder/: the names of outputs must begin with something"]),
        ({"out": "none/out"}, ["none/out.seed0.jsonl: No such file or directory"]),
        ({"more": ["--format", "xml"]}, ["format must be one of auto, jsonl, tsv, csv"]),
        ({"more": ["--steps", 61]}, ["steps must be from 1 to the 60 timesteps", "got 61"]),
        ({"more": ["--schedule", "adp_9"]}, ["steps must not be given with the schedule 'adp_9'"]),
        ({"more": ["--schedule", "best"]}, ["schedule must be one of adaptive, uniform"]),
        ({"more": ["--proportions", "1,x"]}, ["proportions must be numbers with commas"]),
        ({"more": ["--proportions", "0.1,0.1"]}, ["proportions"]),
        ({"more": ["--proportions", "nan,1"]}, ["proportions must be numbers with commas"]),
        ({"more": ["--solver", "euler"]}, ["solver must be one of ancestral, ddim, dpm_solver"]),
        ({"more": ["--eta", "0.5"]}, ["eta goes with the solver ddim: got 'ancestral'"]),
        ({"more": ["--length", 65]}, ["length must be at most the 64 positions of the model"]),
        ({"more": ["--precision", "bfloat16"]}, ["precision bfloat16: cpu lacks it here"]),
        ({"more": ["--html", "none/a.html"]}, ["none/a.html: No such file or directory"]),
        ({"more": ["--html", "in.jsonl"]}, ["in.jsonl: the output is an input too"]),
        ({"more": ["--html", "out.seed0.jsonl"]}, ["out.seed0.jsonl: rows are written there"]),
        ({"more": ["--seeds", 2], "out": "-"}, ["seeds must be one where rows go to standard"]),
        ({"more": ["--seed", 2**64 - 1, "--seeds", 2]}, ["seeds must be at least 0 and below"]),
    ):  # fmt: skip
        options: dict[str, Any] = dict(arguments)
        more = options.pop("more", [])
        check_line(sample(model, *more, **options), *texts)
        assert sorted(folder.iterdir()) == before, arguments
    for option, value in (("--steps", "0"), ("--eta", "-1"), ("--eta", "nan"), ("--seeds", "0")):
        code, output, errors = sample(model, f"{option}={value}")
        assert (code, output) == (2, "")
        assert option in errors.splitlines()[-1]
    assert sorted(folder.iterdir()) == before


def test_an_output_that_is_the_input_is_refused(folder: Path, model: Path) -> None:
    shutil.copy("in.jsonl", "in.seed0.jsonl")
    refused = sample(model, source="in.seed0.jsonl", out="in")
    check_line(refused, "in.seed0.jsonl: the output is an input too")
    Path("out.seed1.jsonl").hardlink_to("in.jsonl")
    check_line(sample(model, "--seeds", 2), "out.seed1.jsonl: the output is an input too")
    assert Path("in.jsonl").read_bytes() == Path("in.seed0.jsonl").read_bytes()
    with pytest.raises(ValueError, match="seeds must be at least one, each once"):
        name_outputs("out", [1, 1])


def test_models_of_another_kind_are_one_line(folder: Path, model: Path) -> None:
    from transformers import BertConfig, BertModel

    sizes = {"vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    BertModel(BertConfig(**sizes, intermediate_size=8)).save_pretrained("bert")
    check_line(sample(Path("bert")), "bert: expected a model of text_diffusion, got one of bert")
    check_line(sample(Path("none")), "none: no such folder of a model")
    check_line(sample(Path("in.jsonl")), "in.jsonl: no such folder of a model")
    bare = folder / "bare"
    shutil.copytree(model, bare)
    (bare / "tokenizer.json").unlink()
    check_line(sample(bare), "tokenizer.json: No such file or directory")
    weights = load_file(model / "model.safetensors")
    weights["position_embeddings.weight"][0, 0] = torch.nan
    broken = folder / "broken"
    shutil.copytree(model, broken)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    check_line(sample(broken), "the model's estimates are not finite: it cannot be used")
    del weights["position_embeddings.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    check_line(sample(broken), "broken: its weights lack position_embeddings.weight")
    (broken / "model.safetensors").write_bytes(b"x" * 99)
    check_line(sample(broken), "broken: not a model: ")
    config = json.loads((model / "config.json").read_text())
    for changes, text in (
        ({"row_length": 65}, "row_length must be at least 1 and at most max_position_embeddings"),
        ({"row_length": "x"}, "Field 'row_length' expected int"),
        ({"latent_size": 9}, "broken: not a model: "),
        ({"diffusion_steps": 10_000}, "steps must be at least 1 and at most 9999: got 10000"),
        ({"noise_schedule": "none"}, "name must be one of linear, cosine, sqrt"),
    ):
        shutil.copy(model / "model.safetensors", broken)
        (broken / "config.json").write_text(json.dumps({**config, **changes}))
        check_line(sample(broken), text)
    assert not [*folder.glob("out*")]
