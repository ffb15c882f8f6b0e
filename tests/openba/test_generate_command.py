"""The command `lmcore openba generate`: files, lines that are typed, kills, what it refuses."""

import json
import os
import pty
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from commands import check_line, finish, run_here, run_warm, start, start_warm
from lmcore.cli.terminal import show_part
from lmcore.openba import Generation, TextGenerator
from stopped_runs import read_present
from tiny_generation import PROMPTS, make_pair, save_pair
from tiny_generators import make_t5
from tiny_generators import make_tokenizer as make_t5_tokenizer

SMALL = ["--threads", "1", "--device", "cpu", "--max-new-tokens", "6", "--batch-size", "2"]
# Batches wait, so that a run is still going on when it is killed.
SLOW = """
import time
import lmcore.openba.generation as generation
import lmcore._row_stream as row_stream
write = generation.TextGenerator._generate
def wait(*arguments):
    time.sleep(0.05)
    return write(*arguments)
generation.TextGenerator._generate = wait
row_stream.RowStream.__init__.__kwdefaults__["save_seconds"] = 0.0
import lmcore.openba.prompts as prompts
prompts._BATCHES = 1
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pair(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [PROMPTS[number % 3] for number in range(12)]
    Path("in.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return tmp_path


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_lines_of_a_file(folder: Path, model: Path) -> None:
    arguments = ["openba", "generate", model, "in.txt", *SMALL]
    code, output, errors = run_here(*arguments, "--out", "out.jsonl")
    assert (code, output) == (0, "")
    rows = read_rows("out.jsonl")
    answers = TextGenerator(*make_pair(), Generation(max_new_tokens=6))(PROMPTS[:3])
    assert [row["prompt"] for row in rows[:3]] == PROMPTS[:3]
    assert [row["generation"] for row in rows] == [answer.text for answer in answers] * 4
    cut = sum(row.get("truncated") == ["output"] for row in rows)
    assert errors.splitlines() == [
        "12 prompts answered, 0 skipped",
        f"{cut} generated texts were cut before their end",
    ]
    code, output, _ = run_here(*arguments)
    assert (code, output.encode()) == (0, Path("out.jsonl").read_bytes())


def test_rows_and_what_is_cut(folder: Path, model: Path) -> None:
    prompt = "Ada met Otto. " * 20
    Path("in.jsonl").write_text(f'{{"text": "{prompt}", "id": 7}}\n{{"id": 8}}\n')
    arguments = ["openba", "generate", model, "in.jsonl", "--out", "out.jsonl.gz", *SMALL]
    check_line(run_here(*arguments), "in.jsonl:2: expected a text under 'prompt' or 'text'")
    code, output, errors = run_here(*arguments, "--skip-bad-rows", "--max-source-tokens", 9)
    assert (code, output) == (0, "")
    assert errors.splitlines()[:3] == [
        "skipped in.jsonl:2: expected a text under 'prompt' or 'text'",
        "1 prompts answered, 1 skipped",
        "1 prompts were cut: the model read a beginning",
    ]
    with open("in.jsonl", encoding="utf-8") as file:
        arguments = ["openba", "generate", model, "-", "--format", "jsonl", *SMALL]
        result = run_warm(*arguments, "--skip-bad-rows", stdin=file)
    assert (result[0], len(result[1].splitlines())) == (0, 1)


def test_settings_reach_the_generator(folder: Path, model: Path) -> None:
    Path("in.jsonl").write_text('{"prompt": "<X> Ada <extra_id_0>"}\n')
    arguments = ["openba", "generate", model, "in.jsonl", *SMALL]
    options = ["--plain", "--temperature", 1.5, "--top-p", 0.9, "--top-k", 9, "--seed", 4]
    code, output, _ = run_here(*arguments, *options)
    assert code == 0
    settings = Generation(plain=True, temperature=1.5, top_p=0.9, top_k=9, seed=4, max_new_tokens=6)
    [expected] = TextGenerator(*make_pair(), settings)(["<X> Ada <extra_id_0>"], rows=[1])
    assert json.loads(output)["generation"] == expected.text
    code, output, _ = run_here(*arguments, "--num-beams", 3)
    [expected] = TextGenerator(*make_pair(), Generation(num_beams=3, max_new_tokens=6))(
        ["<X> Ada <extra_id_0>"]
    )
    assert json.loads(output)["generation"] == expected.text


def test_a_text_that_is_longer_than_the_model_saw(folder: Path, model: Path) -> None:
    """It is written, and a line says so once."""
    Path("two").write_text("Ada\nOtto\n")
    arguments = ["openba", "generate", model, "two", "--device", "cpu", "--threads", "1"]
    code, output, errors = run_warm(*arguments, "--max-new-tokens", "80", "--batch-size", "1")
    assert (code, len(output.splitlines())) == (0, 2)
    first, *rest = errors.splitlines()
    assert first.startswith("lmcore: 65 positions are more than the 64 of decoder_max_seq_length")
    assert rest[0] == "2 prompts answered, 0 skipped"


# Lines that are typed.


def test_lines_from_a_pipe(folder: Path, model: Path) -> None:
    process = start_warm("openba", "generate", model, *SMALL, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    answers = TextGenerator(*make_pair(), Generation(max_new_tokens=6))(PROMPTS[:2])
    for prompt, answer in zip(PROMPTS[:2], answers, strict=True):
        process.stdin.write(f"{prompt}\n\n")
        process.stdin.flush()
        # An answer comes before the next line is there.
        assert process.stdout.readline() == f"{answer.text}\n"
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")
    assert set(errors.splitlines()) <= {"the text was cut"}
    result = run_warm("openba", "generate", model, *SMALL, stdin=subprocess.DEVNULL)
    assert result == (0, "", "")


def test_a_line_that_is_not_utf8_ends_a_pipe(folder: Path, model: Path) -> None:
    Path("bad").write_bytes(b"Ada\n\xff\n")
    with open("bad", "rb") as file:
        code, _, errors = run_warm("openba", "generate", model, *SMALL, stdin=file)
    assert code == 2
    assert errors.splitlines()[-1] == "lmcore: standard input:2: not UTF-8 at byte 1"


def read_until(master: int, text: str, seconds: float = 60) -> str:
    """What a terminal shows up to a text."""
    os.set_blocking(master, False)
    shown, end = "", time.monotonic() + seconds
    while text not in shown:
        assert time.monotonic() < end, shown
        try:
            shown += os.read(master, 4096).decode(errors="replace")
        except BlockingIOError:
            time.sleep(0.02)
        except OSError:
            break
    return shown


@pytest.mark.alone
def test_a_terminal(folder: Path, model: Path) -> None:
    """A mark, an answer, a line that cannot be read, and Ctrl-C."""
    master, slave = pty.openpty()
    process = start(
        "openba", "generate", model, *SMALL, stdin=slave, stdout=slave, stderr=slave,
        preexec_fn=os.setsid,
    )  # fmt: skip
    os.close(slave)
    assert read_until(master, "> ").endswith("> ")
    os.write(master, b"Ada\n")
    shown = read_until(master, "\n> ")
    [answer] = TextGenerator(*make_pair(), Generation(max_new_tokens=6))(["Ada"], rows=[1])
    assert answer.text in shown.replace("\r\n", "\n")
    os.write(master, b"\xff\n")
    assert "standard input:2: not UTF-8 at byte 1" in read_until(master, "\n> ")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert "lmcore: interrupted" in read_until(master, "interrupted")
    os.close(master)


def test_control_characters_do_nothing_to_a_terminal(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(TextGenerator, "_decode", lambda self, tokens: "\x1b[2J\u202eb")
    Path("one").write_text("Ada\n")
    code, output, _ = run_here("openba", "generate", model, "one", *SMALL)
    assert (code, "\x1b" in output, "\u202e" in output) == (0, False, False)
    assert json.loads(output)["generation"] == "\x1b[2J\u202eb"
    show_part("a\x1b[2J\nb")
    assert capsys.readouterr().out == "a\\x1b[2J\nb"


# Kills.


def wait_for_rows(folder: Path, process: "subprocess.Popen[str]", count: int) -> None:
    end = time.monotonic() + 60
    while not any(
        json.loads(state)["rows"] >= count for state in read_present(folder.glob(".*.lmcore-state"))
    ):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_run_goes_on_to_the_same_bytes(folder: Path, model: Path, number: int) -> None:
    arguments = ["openba", "generate", model, "in.txt", *SMALL, "--temperature", "1", "--quiet"]
    assert run_warm(*arguments, "--out", "whole.jsonl", code=SLOW)[0] == 0
    arguments += ["--out", "out.jsonl"]
    process = start_warm(*arguments, code=SLOW)
    wait_for_rows(folder, process, 2)
    process.send_signal(number)
    code, output, errors = finish(process)
    assert code == (-9 if number == signal.SIGKILL else 128 + number)
    assert (output, errors) == ("", "lmcore: interrupted\n" if number == signal.SIGINT else "")
    assert not Path("out.jsonl").exists()
    check_line(run_warm(*arguments, "--seed", "9", code=SLOW), "out.jsonl")
    code, _, errors = run_warm(*arguments, code=SLOW)
    assert code == 0
    assert " of them before, 0 skipped" in errors
    assert Path("out.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


# What it refuses.


def test_folders_that_hold_no_model(folder: Path, model: Path, tmp_path: Path) -> None:
    def refuse(name: object, *texts: str) -> None:
        check_line(run_here("openba", "generate", name, "in.txt", *SMALL), *texts)

    refuse("nowhere", "nowhere: no such folder of a model")
    refuse("in.txt", "in.txt: no such folder of a model")
    refuse(tmp_path, "not a model: there is no config.json in it")
    tokenizer = make_t5_tokenizer()
    for part in (tokenizer, make_t5(tokenizer)):
        part.save_pretrained("t5")
    refuse("t5", "config.json: expected a model of the kind 'openba', got 't5'")
    for name, content in (
        ("model.safetensors", None), ("model.safetensors", b"text"), ("tokenizer.json", b"{}"),
        ("config.json", b"[" * 200_000), ("config.json", b"[]"),
        ("config.json", b'{"model_type": "openba", "kv_channels": 3}'),
        ("config.json", b'{"model_type": "openba", "num_heads": "x"}'),
    ):  # fmt: skip
        shutil.rmtree("m", ignore_errors=True)
        shutil.copytree(model, "m")
        if content is None:
            Path("m", name).unlink()
        else:
            Path("m", name).write_bytes(content)
        if name == "tokenizer.json":
            Path("m", "spiece.model").unlink(missing_ok=True)
        refuse("m", "m")
    assert not Path("out.jsonl").exists()


def test_a_tokenizer_of_another_size(folder: Path, model: Path) -> None:
    small = save_pair(folder / "small", vocab_size=128)
    result = run_here("openba", "generate", small, "in.txt", *SMALL)
    check_line(result, "small: the tokenizer and the model do not fit: ", "has 128 embeddings")


def test_options_that_do_not_fit(folder: Path, model: Path) -> None:
    def refuse(*options: object, text: str) -> None:
        check_line(run_here("openba", "generate", model, *options), text)

    refuse("--out", "o", text="--out needs a FILE of prompts")
    refuse("in.txt", "--out", "in.txt", text="in.txt: the output is an input too")
    refuse("in.txt", "--top-k", 3, text="temperature must be above 0 where top_k")
    refuse("in.txt", "--dtype", "int8", text="dtype must be one of auto")
    refuse("in.txt", "--format", "parquet", text="format must be one of auto, text, jsonl")
    refuse("none.txt", *SMALL, text="none.txt: No such file or directory")
