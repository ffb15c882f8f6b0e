"""Mutated files of every reader: a result or a refusal, never anything else.

A case is a function of (seed, number): one of the files that lmcore reads is copied, changed, and
read by the commands and functions that read it. It must end in a result, or in exit code 2 with
one line, or for a function in an error that lmcore raised itself. Another exception, an abort, no
answer for a minute or memory without bound is a failure. So is a process, a connection, or a file
opened for writing outside of the folder of the cases, whether or not somebody swallows the error.
Cases run in a process of their own, so that its end is seen and told.

    python tests/mutate_files.py --examples 1000 --seed 1 [--only state.pt] [--case 17]
"""

import argparse
import contextlib
import gzip
import io
import json
import math
import os
import random
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

# Address space that the cases may take besides what their process starts with.
MEMORY_BYTES = 3 << 30
START_SECONDS = 240
TIMEOUT_SECONDS = 60

VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 3, 2**31, 2**53 + 1, 2**63, 2**64, 10**9, 10**30, 1.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "x", "\x00", "\x1b[2J\n", "1_0", "١", "nan", "cpu", "float99",
    [], {}, [[]], [None], {"a": 1}, ["x", "y"], [0, 1], "a" * 5000, list(range(300)),
]  # fmt: skip
PIECES = [
    b"", b"\x00", b"\xff", b"\xed\xa0\x80", b"\r", b"\n", b"\t", b" ", b'"', b"\\", b"\\ud800",
    b"[", b"[" * 3000, b'{"a":' * 3000, b"NaN", b"1e400", b"-1", b"0", b"18446744073709551616",
    b"1_0", "１".encode(), b"\xef\xbb\xbf", b"null", b"{}", b"(O)", b"B-", b")(", b",", b":",
    b"1" * 400,
]  # fmt: skip
# Events of Python's audit hooks.
FORBIDDEN = {
    "socket.connect", "socket.getaddrinfo", "socket.bind", "subprocess.Popen", "os.system",
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "pty.spawn", "ctypes.dlopen",
    "webbrowser.open",
}  # fmt: skip
# Keys that transformers gives a meaning of its own.
KEYS = [
    "num_labels", "id2label", "label2id", "dtype", "torch_dtype", "auto_map", "architectures",
    "quantization_config", "attn_implementation", "return_dict", "tie_word_embeddings", "a",
    "problem_type", "output_attentions", "transformers_version", "model_type", "data", "dataset",
]  # fmt: skip

# How texts are scored.
SCORED = ("--scorer", "{}/scorer", "--cache", "{}/kept")
WORDS = ("--scorer", "{}/words.txt")
CLEANED = ["first.txt", "second.txt"]
MEGATRON = "megatron/iter_0000123/mp_rank_01/model_optim_rng.pt"
# The newest state of the run.
STATE = "run/states/step-2"


class Target(NamedTuple):
    """A file that is read, and what reads it."""

    file: str
    """Its place in the workspace."""
    readers: list[Callable[[Path], Any]]
    """Called with a copy of the workspace."""


# The workspace.


def build(folder: Path) -> None:
    """Writes one file of each kind."""
    import torch
    from safetensors.torch import save_file

    from commands import SMALL, run_here, write_pairs
    from lmcore.recsys.loading import load_model
    from prediction_rows import make_rows, write_rows

    rows = make_rows(6, datasets=["one", "two"])
    inner = {key: rows[0].pop(key) for key in ("words", "labels")}
    write_rows(folder / "rows.jsonl", [{**rows[0], "instance": inner}, *rows[1:]])
    texts = [{"text": "in New York", "label_list": ["x"], "prediction": "in(O) New York(B-x)"}]
    write_rows(folder / "texts.jsonl", [*texts, *rows[1:4]])
    write_sentences(folder)
    pairs = write_pairs(folder / "pairs.txt", users=12, items=20)
    items: dict[str, list[str]] = {}
    for user, item in (line.split() for line in pairs.read_text().splitlines()):
        items.setdefault(user, []).append(item)
    lines = (f"{user} {' '.join(row)}\n" for user, row in items.items())
    (folder / "sequences.txt").write_text("".join(lines))
    head = "user_id:token\titem_id:token\ttimestamp:float\n"
    times = (
        f"{user}\t{item}\t{k}.5\n" for user, row in items.items() for k, item in enumerate(row)
    )
    (folder / "rows.inter").write_text(head + "".join(times))
    (folder / "texts.jsonl.gz").write_bytes(gzip.compress((folder / "texts.jsonl").read_bytes()))
    with contextlib.suppress(KeyboardInterrupt):
        stream_rows(folder, stop=2)
    arguments = [
        "--data",
        pairs,
        "--out",
        folder / "run",
        "--epochs",
        2,
        *SMALL,
        "--set",
        "start=1",
    ]
    code, _, errors = run_here("recsys", "train", "consistency", *arguments)
    assert code == 0, errors
    # Without digests, so that readers look at what a file holds.
    shutil.copytree(folder / "run" / "best", folder / "model")
    (folder / "model" / "manifest.json").unlink()
    weights = {name: w.clone() for name, w in load_model(folder / "run").state_dict().items()}
    torch.save(weights, folder / "weights.pth")
    save_file(weights, folder / "weights.safetensors")
    write_large_model(folder)
    write_toxicity(folder)
    write_instruction_files(folder)


def write_instruction_files(folder: Path) -> None:
    """Rows of tasks with their templates, dialogues, and pairs with a tokenizer."""
    from lmcore.worlds.openba import write_piece_file
    from tiny_scorers import write_jsonl

    write_piece_file(folder / "pieces.model")
    task = [{"q": "why", "n": n, "language": name} for n, name in enumerate(("en", "zh"))]
    write_jsonl(folder / "tasks.jsonl", task)
    template = {"source": "{{{q}}} {n}", "target": "{n}", "choices": {"n": ["no", "yes"]}}
    (folder / "templates.json").write_text(json.dumps({"tasks": [template]}))
    turns = [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello."}]
    chats = [{"conversations": turns}, {"instruction": "a", "input": "b", "output": "c"}]
    (folder / "chats.json").write_text(json.dumps(chats))
    write_jsonl(folder / "pairs.jsonl", [{"source": "Ada met", "target": "Otto."}] * 3)
    write_openba_runs(folder)


def write_openba_runs(folder: Path) -> None:
    """What cleaning leaves after a kill, a mixture, questions, and checkpoints of Megatron."""
    import megatron_files
    import tiny_openba
    import tiny_questions
    from lmcore.openba import OpenBATokenizer, pack_files

    line = "The {} of them went over the hills to see www.a.org and all of them stayed there.\n"
    for number, name in enumerate(CLEANED):
        (folder / name).write_text("".join(line.format(n + 100 * number) for n in range(60)))
    stop_cleaning(folder)
    tokenizer = OpenBATokenizer(folder / "pieces.model")
    pack_files([folder / "first.txt"], tokenizer, folder / "texts", length=16)
    sources = [{"name": name, "data": "texts", "weight": n} for n, name in enumerate("ab", 1)]
    (folder / "mixture.json").write_text(json.dumps({"sources": sources}))
    model = tiny_openba.make_model(vocab_size=tokenizer.padded_size())
    for part in (model, tokenizer):
        part.save_pretrained(folder / "openba")
    (folder / "openba/stage.json").write_text('{"stage": "ul2"}\n')
    small = tiny_openba.make_model(
        vocab_size=64, hidden_size=8, ffn_hidden_size=12, kv_channels=4, decoder_layers=2
    )
    megatron_files.write_checkpoint(folder / "megatron", small, 2, names_model_type=False, side=2)
    tiny_questions.write_json(folder / "asked/a.json", tiny_questions.make_pairs(3, demos=2))
    rows = '0,"not a,\nor",a,b,c,d,A\n1,q,a,b,c,d,D\n'
    tiny_questions.write_text(folder / "asked/logic_val.csv", tiny_questions.CEVAL + rows)
    arc = [tiny_questions.make_arc(number) for number in range(2)]
    tiny_questions.write_lines(folder / "asked/arc.jsonl", arc)
    free = {"input": "Is it?\nOptions:\n- Yes\n- No", "target": "Yes"}
    sums = [{"input": f"1 + {number}", "target": str(number + 1)} for number in range(2)]
    bbh = {"canary": "examples", "examples": [free, *sums] * 2}
    tiny_questions.write_json(folder / "asked/bbh.json", bbh)


def stop_cleaning(folder: Path) -> None:
    """Cleans two files, the second one in part."""
    from unittest.mock import patch

    from lmcore.openba import cleaned_output
    from lmcore.openba.cleaned_files import clean_files

    work, calls = cleaned_output.clean_texts, []

    def stop(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return work(*arguments, **options)

    small = {"_BYTES_AT_ONCE": 1500, "_SAVE_SECONDS": 0.0, "clean_texts": stop}
    with (
        patch.multiple(cleaned_output, **small),
        contextlib.suppress(KeyboardInterrupt),
        contextlib.chdir(folder),  # for names that are the same in a copy
    ):
        clean_files(CLEANED, "cleaned", threads=1)


def write_toxicity(folder: Path) -> None:
    """Labelled texts, a scorer, a file of kept scores, generations and what judges are given."""
    from commands import run_here
    from lmcore.detox import write_sheet
    from tiny_scorers import write_jsonl, write_labelled

    write_labelled(folder / "labelled.jsonl", 30)
    rows = [
        {"prompt": {"text": f"a {n}", "toxicity": 0.2}, "generations": ["b", "blap"], "kind": kind}
        for n, kind in enumerate(("explicit", "implicit", None))
    ]
    write_jsonl(folder / "generations.jsonl", rows)
    commands = (
        ("train-scorer", "labelled.jsonl", "--out", folder / "scorer", "--bits", 8),
        ("score", "labelled.jsonl", folder / "scored.jsonl", *SCORED),
    )
    for name, source, *arguments in commands:
        given = [str(part).replace("{}", str(folder)) for part in arguments]
        code, _, errors = run_here("detox", name, folder / source, *given)
        assert code == 0, errors
    write_sheet(folder / "generations.jsonl", folder / "generations.jsonl", folder / "page.html")
    write_chains(folder)
    key = json.loads((folder / "page.html.key.json").read_text())
    answers = {name: ["left", "equal", None] for name in ("less toxic", "better text")}
    write_jsonl(folder / "answers.json", [{"sheet": key["sheet"], "answers": answers}])


def write_chains(folder: Path) -> None:
    """What chains are made of, chains, prompts in both forms, spans, and a list of words."""
    import tiny_chains
    from tiny_detox import save_segment_cnn
    from tiny_scorers import write_jsonl

    continued = {"generation": ["b", "c", "d"], "cont_toxicity": [0.1, 0.7, 0.4]}
    masked = {"mask_prompt": "<MASK>", "recover_prompt": "e"}
    rows = [{"prompt": "a", **continued}, {"prompt": "a blap", **continued, **masked}]
    write_jsonl(folder / "continued.jsonl", rows)
    write_jsonl(folder / "chains.jsonl", tiny_chains.make_rows(4))
    prompts = [{"prompt": {"text": "you are bad", "toxicity": 0.9}}, {"text": "so nice"}]
    write_jsonl(folder / "prompts.jsonl", prompts)
    (folder / "prompts.txt").write_text("you are bad\nso nice\n")
    (folder / "words.txt").write_text("blap\nso bad\n")
    (folder / "gold.csv").write_text('spans,text\n"[8, 9, 10]",you are bad\n[],so nice\n')
    spans = [("you are bad", [[8, 11]]), ("so nice", [])]
    write_jsonl(folder / "found.jsonl", [{"text": t, "spans": found} for t, found in spans])
    scored = [{"content": "you are bad", "score": [0, 0.9]}, {"content": "so", "score": []}]
    write_jsonl(folder / "scored.jsonl", scored)
    texts = [f"{word} {n},{n % 2}" for n in range(20) for word in ("nice", "blap")]
    (folder / "labelled.csv").write_text("text,label\n" + "".join(f"{t}\n" for t in texts))
    save_segment_cnn(folder / "segments")


def write_large_model(folder: Path) -> None:
    """A model, a plan of two stages, and what is left after the first."""
    from commands import run_here
    from tiny_families import save_model

    large, plan = save_model("umt5", folder / "large"), folder / "plan.json"
    first = ["--decoder-layers", 2, "--ffn", 7, "--name", "first"]
    second = ["--heads", 2, "--after", plan]
    for more in (first, second):
        assert run_here("compression", "plan", large, plan, *more)[0] == 0
    stages = [
        {"name": "first",
         "keep": {"decoder_layers": "0,2", "decoder_ffn": {"0": "0-6", "2": "1-7"},
                  "encoder_ffn": {"0": "0-6", "1": "0-2,4-7", "2": "1-7"}},
         "recover": {"recipe": "tiny", "set": {"loop.steps": 3}}, "data": "prompts.txt"},
        {"name": "second", "sizes": {"ffn": 6, "seed": 3}},
        {"name": "third", "target": {"goal": "params=95%"}, "recover": None},
        {"name": "last", "vocabulary": {"keep": 40, "counts": "counts"}},
    ]  # fmt: skip
    content = {"format": "lmcore-path", "version": 1, "model": "large", "stages": stages}
    (folder / "path.json").write_text(json.dumps(content))
    pruned = ["prune", large, folder / "small", "--plan", plan, "--stage", 1]
    assert run_here("compression", *pruned)[0] == 0


def write_sentences(folder: Path) -> None:
    """Columns, the authors' folder, and entities by their offsets."""
    lines = "in\tO\nNew\tB-city\nYork\tI-city\n\nhi\tO\n\nAda\tS-person\n" * 3
    (folder / "columns.txt").write_text(lines)
    (folder / "spaced.txt").write_text("-DOCSTART- O\n\n# id 1\n" + lines.replace("\t", " NN x "))
    (folder / "set").mkdir()
    (folder / "set/label.txt").write_text("city\nperson\n")
    (folder / "set/train.txt").write_text(lines)
    (folder / "template.txt").write_text("{types}\n{dataset}\n{sentence}\n")
    marked = [{"start": 3, "end": 11, "type": "city"}, {"start": 12, "end": 13, "label": "x"}]
    entities = [{"text": "in New York 北京", "entities": marked, "id": 3}] * 2
    (folder / "entities.jsonl").write_text("".join(json.dumps(row) + "\n" for row in entities))


# Readers.


def stream_rows(folder: Path, *, stop: int | None = None, skip_bad_rows: bool = True) -> None:
    """Rows of texts into others; stops after so many, as a run that is interrupted."""
    from lmcore._row_stream import RowStream

    files = folder / "texts.jsonl", folder / "streamed.jsonl"
    with RowStream(*files, {"keys": ["text"]}, skip_bad_rows=skip_bad_rows) as stream:
        for row in stream:
            stream.write(row, {"text": row.value.get("text")})
            if stream.rows == stop:
                raise KeyboardInterrupt


def command(*parts: str) -> Callable[[Path], Any]:
    """A reader that runs a command; `{}` in an argument is the workspace."""

    def run(folder: Path) -> str:
        from typer.testing import CliRunner

        from lmcore.cli import app

        arguments = [part.replace("{}", str(folder)) for part in parts]
        result = CliRunner().invoke(app, arguments, prog_name="lmcore")
        error = result.exception
        if error is not None and not isinstance(error, SystemExit):
            raise error
        lines = result.stderr.splitlines()
        if "\x1b" in result.output:
            raise AssertionError(f"ESC on the terminal: {result.output!r}")
        if result.exit_code == 2 and lines and lines[-1].startswith("lmcore: "):
            return "refused"
        if result.exit_code != 0:
            raise AssertionError(f"exit code {result.exit_code}: {result.stderr!r}")
        return "result"

    return run


def call(function: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """A reader that calls the library."""

    def run(folder: Path) -> str:
        from lmcore.cli.failures import is_answer

        try:
            function(folder)
        except (IndexError, TypeError, ValueError) as error:
            if not is_answer(error):
                raise
            return "refused"
        except (OSError, MemoryError):
            return "refused"
        return "result"

    return run


def read_data(name: str, kind: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> None:
        from lmcore.recsys.data import leave_one_out
        from lmcore.recsys.reading import read_interactions

        data = leave_one_out(read_interactions(folder / name, format=kind))
        data.sequences("test", 5)
        data.interactions.history()

    return call(read)


def on_data(name: str, kind: str) -> list[Callable[[Path], Any]]:
    skip = ["--format", kind, "--skip-bad-rows"]
    data = ["--data", f"{{}}/{name}"]
    return [
        read_data(name, "auto"),
        read_data(name, kind),
        command("recsys", "evaluate", "{}/run", *data, "--json", *skip),
        command("recsys", "recommend", "{}/run", "all", *data, *skip),
    ]


def read_pairs(folder: Path) -> None:
    from lmcore.recsys.folder import read_mined_pairs

    read_mined_pairs(folder / "run")


def read_pruning(folder: Path) -> None:
    from lmcore.compression.record import read_record

    read_record(folder / "small")


def settle_path(folder: Path) -> None:
    from lmcore.compression.path_cuts import settle_stages
    from lmcore.compression.path_files import dump_path, read_path
    from lmcore.compression.planning import start_plan

    path = read_path(folder / "path.json")
    dump_path(settle_stages(path, start_plan(folder / "large")))


def inside(reader: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """A reader that is given names within the workspace."""

    def run(folder: Path) -> Any:
        with contextlib.chdir(folder):
            return reader(folder)

    return run


def draw_mixture(folder: Path) -> None:
    import numpy as np

    from lmcore.openba.mixture import MixtureDraws, read_mixture

    MixtureDraws(read_mixture(folder / "mixture.json"), 1).draw(np.arange(3000))


def start_stage(folder: Path) -> None:
    from lmcore.openba.stages import check_stage

    check_stage("length_adaptation", folder / "openba")


def ask(task: str, name: str, **options: Any) -> Callable[[Path], Any]:
    """The questions of a file."""

    def read(folder: Path) -> None:
        from lmcore.openba import read_questions

        read_questions(folder / "asked" / name, task, **options)

    return call(read)


def read_texts(folder: Path) -> None:
    from lmcore.openba import IndexedDataset

    data = IndexedDataset(folder / "texts")
    for number in range(min(len(data), 100)):
        len(data[number].source)


def on_cleaning() -> list[Target]:
    """What a run of cleaning goes on with."""
    from lmcore._finished import FinishedOutput
    from lmcore._partial import Partial

    clean = inside(command("openba", "clean", *CLEANED, "--out", "cleaned", "--threads", "1"))
    begun = Partial("", Path("cleaned/second.txt"))
    done = FinishedOutput("cleaned/first.txt", {})
    hashes = begun.rows.name.replace("rows", "hashes")
    files = [begun.state, begun.rows, begun.rows.with_name(hashes), done._file]
    return [Target(str(file), [clean]) for file in (*files, Path("cleaned/.lmcore-key"))]


def read_segments(form: str, name: str) -> Callable[[Path], Any]:
    """Labels of texts, by a tokenizer that stands beside them."""

    def read(folder: Path) -> None:
        from lmcore.detox.span_labels import read_labelled
        from tiny_detox import make_words

        read_labelled(folder / name, make_words(), form=form)

    return call(read)


def learn_chains(folder: Path) -> None:
    """Rows of training as those are taken that a run learns."""
    from lmcore._rows import RowReader
    from lmcore.detox.chain_collator import ChainCollator
    from tiny_chains import make_gpt2, make_words

    tokenizer = make_words()
    collator = ChainCollator(tokenizer, make_gpt2(tokenizer))
    rows = [row.value for row in RowReader(folder / "chains.jsonl")]
    collator.pad(item for item in collator.encode(rows) if item)


def make_examples(name: str, *options: str) -> Callable[[Path], Any]:
    """Examples in every way that an option asks for."""
    more = ["--max-words", "2", "--overlap", "1", "--context", "1", "--boundaries", "io"]
    drawn = ["--types-per-row", "1", "--drop-types", "20", "--over-sample", "--cap", "7"]
    names = [f"{{}}/{name}", "{}/examples.jsonl"]
    return command("ner", "data", *names, *more, *drawn, *options)


def on_sentences(name: str) -> list[Callable[[Path], Any]]:
    return [make_examples(name), make_examples(name, "--skip-bad-rows")]


def readers_of(model: str) -> list[Callable[[Path], Any]]:
    data = ["--data", "{}/pairs.txt"]
    return [
        command("recsys", "evaluate", f"{{}}/{model}", *data, "--json"),
        command("recsys", "recommend", f"{{}}/{model}", "1", "2", *data),
    ]


def signed(reader: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """A reader of a state that was changed by somebody who wrote its digest anew."""

    def run(folder: Path) -> Any:
        from lmcore._manifest import write_manifest

        state = folder / STATE
        manifest = json.loads((state / "manifest.json").read_text())
        write_manifest(state, manifest["fingerprint"], manifest["step"], models=manifest["models"])
        return reader(folder)

    return run


def make_targets() -> dict[str, Target]:
    from commands import SMALL
    from lmcore._partial import Partial

    score = ["ner", "score", "{}/rows.jsonl", "--json"]
    align = ["ner", "align", "{}/texts.jsonl", "{}/aligned.jsonl"]
    train = ["recsys", "train", "consistency", "--data", "{}/pairs.txt", "--out", "{}/run", *SMALL]
    go_on = command(*train, "--set", "start=1", "--epochs", "3")
    weights = ["--data", "{}/pairs.txt", "--json"]
    begun = Partial("", Path("streamed.jsonl"))

    def prune(out: str) -> Callable[[Path], Any]:
        """Each into a folder of its own: what is finished is not begun again."""
        plan = ("--plan", "{}/plan.json")
        return command("compression", "prune", "{}/large", f"{{}}/{out}", *plan)

    def instruct(*options: str) -> Callable[[Path], Any]:
        files = ("{}/tasks.jsonl", "--templates", "{}/templates.json", "--out", "{}/made.jsonl")
        return command("openba", "instructions", *files, *options)

    judge_spans = command(
        "detox", "score-spans", "{}/gold.csv", "{}/found.jsonl", "--skip-bad-rows", "--json"
    )

    def find_spans(name: str) -> Callable[[Path], Any]:
        model = ("--model", "{}/segments", "--device", "cpu", "--threads", "1")
        return command("detox", "mask", f"{{}}/{name}", "{}/masked.jsonl", *model)

    measure = command("detox", "evaluate", "{}/generations.jsonl", *SCORED, "--json")
    answers = ("--sheet", "{}/page.html", "--answers", "{}/answers.json")
    judge = command("detox", "evaluate", "{}/generations.jsonl", *answers)
    targets = [
        Target("generations.jsonl", [
            measure, command("detox", "score", "{}/generations.jsonl", *SCORED, "--words"),
        ]),
        Target("tasks.jsonl", [instruct(), instruct("--skip-bad-rows", "--repeat")]),
        Target("templates.json", [instruct(), instruct("--skip-bad-rows", "--ratio", "none")]),
        Target("chats.json", [
            command("openba", "format", "chat", "{}/chats.json", "--out", "{}/chat.jsonl"),
            command("openba", "format", "instruction-generation", "{}/chats.json", "--out",
                    "{}/chat.jsonl", "--skip-bad-rows"),
        ]),
        Target("pairs.jsonl", [
            command("openba", "pack", "{}/pairs.jsonl", "--pairs", "--tokenizer",
                    "{}/pieces.model", "--out", "{}/packed", "--skip-bad-rows", "--no-resume"),
        ]),
        *on_cleaning(),
        Target("mixture.json", [call(draw_mixture)]),
        Target("openba/stage.json", [call(start_stage)]),
        Target("texts.idx", [call(read_texts)]),
        Target("asked/a.json", [
            ask("mmlu", "a.json", shots=2), ask("arc", "a.json", skip_bad_rows=True),
            command("openba", "evaluate", "{}/openba", "--task", "mmlu", "--data",
                    "{}/asked/a.json", "--device", "cpu", "--threads", "1", "--shots", "1"),
        ]),
        Target("asked/logic_val.csv", [
            ask("ceval", "logic_val.csv"), ask("ceval", "logic_val.csv", skip_bad_rows=True),
        ]),
        Target("asked/arc.jsonl", [ask("arc", "arc.jsonl")]),
        Target("asked/bbh.json", [ask("bbh", "bbh.json")]),
        Target(MEGATRON, [command("openba", "convert", "{}/megatron", "--out", "{}/converted")]),
        Target("labelled.jsonl", [
            command("detox", "train-scorer", "{}/labelled.jsonl", "--out", "{}/new", "--bits", "8")
        ]),
        Target("labelled.csv", [
            command("detox", "train-scorer", "{}/labelled.csv", "--out", "{}/new", "--bits", "4",
                    "--skip-bad-rows"),
        ]),
        Target("continued.jsonl", [
            command("detox", "chains", "{}/continued.jsonl", "{}/made.jsonl"),
            command("detox", "chains", "{}/continued.jsonl", "{}/made.jsonl", "--grammar",
                    "student", "--skip-bad-rows"),
        ]),
        Target("chains.jsonl", [
            command("detox", "chains", "{}/chains.jsonl", "--check", "--skip-bad-rows"),
            call(learn_chains),
        ]),
        Target("prompts.jsonl", [
            command("detox", "score", "{}/prompts.jsonl", *WORDS), find_spans("prompts.jsonl"),
        ]),
        Target("prompts.txt", [
            command("detox", "score", "{}/prompts.txt", *WORDS, "--words"),
            find_spans("prompts.txt"),
        ]),
        Target("words.txt", [command("detox", "score", "{}/prompts.txt", *WORDS)]),
        Target("gold.csv", [judge_spans, read_segments("semeval", "gold.csv")]),
        Target("found.jsonl", [judge_spans]),
        Target("scored.jsonl", [read_segments("pairs", "scored.jsonl")]),
        Target("segments/config.json", [find_spans("prompts.txt")]),
        Target("segments/tokenizer.json", [find_spans("prompts.txt")]),
        Target("segments/model.safetensors", [find_spans("prompts.txt")]),
        Target("scorer/config.json", [measure]),
        Target("kept", [measure]),
        Target("page.html.key.json", [judge]),
        Target("answers.json", [judge]),
        Target("rows.jsonl", [
            make_examples("rows.jsonl", "--skip-bad-rows"), command(*score),
            command(*score, "--skip-bad-rows", "--html", "{}/page.html", "--threads", "1"),
        ]),
        Target("texts.jsonl", [
            command(*align), command(*align, "--skip-bad-rows"), call(stream_rows),
            call(partial(stream_rows, skip_bad_rows=False)),
        ]),
        Target("texts.jsonl.gz", [
            command("ner", "align", "{}/texts.jsonl.gz", "{}/aligned.jsonl.gz", "--skip-bad-rows")
        ]),
        Target("columns.txt", on_sentences("columns.txt")),
        Target("spaced.txt", on_sentences("spaced.txt")),
        Target("set/label.txt", [make_examples("set")]),
        Target("template.txt", [make_examples("columns.txt", "--template", "{}/template.txt")]),
        Target("entities.jsonl", on_sentences("entities.jsonl")),
        Target(begun.rows.name, [call(stream_rows)]),
        Target(begun.state.name, [call(stream_rows)]),
        Target("pairs.txt", on_data("pairs.txt", "pairs")),
        Target("sequences.txt", on_data("sequences.txt", "sequences")),
        Target("rows.inter", on_data("rows.inter", "inter")),
        Target("model/id_map.json", readers_of("model")),
        Target("model/config.json", readers_of("model")),
        Target("model/model.safetensors", readers_of("model")),
        Target("run/models/step-1/manifest.json", readers_of("run")),
        Target("run/recipe.json", [command("recsys", "recommend", "{}/run", "1"), go_on]),
        Target(
            f"{STATE}/state.pt",
            [go_on, signed(go_on), signed(go_on), call(read_pairs), signed(call(read_pairs))],
        ),
        Target("run/log.jsonl", [go_on]),
        Target("weights.pth", [command("recsys", "evaluate", "{}/weights.pth", *weights)]),
        Target("weights.safetensors", [
            command("recsys", "evaluate", "{}/weights.safetensors", *weights)
        ]),
        Target("plan.json", [
            command("compression", "cost", "{}/plan.json"), prune("out 1"),
        ]),
        Target("large/config.json", [
            command("compression", "plan", "{}/large", "{}/other.json", "--ffn", "7"),
            prune("out 2"),
        ]),
        Target("large/model.safetensors", [prune("out 3")]),
        Target("small/pruning.json", [call(read_pruning)]),
        Target("path.json", [call(settle_path)]),
    ]  # fmt: skip
    return {name_of(target): target for target in targets}


def name_of(target: Target) -> str:
    """What a target is called: the name of its file, or its place where another has that name."""
    path = Path(target.file)
    return target.file if path.parts[0] in ("large", "scorer", "segments") else path.name


# Changes.


def change(data: bytes, name: str, source: random.Random) -> bytes:
    """The content of a file, changed once or a few times."""
    if source.random() < 0.5:
        changed = change_structure(data, name, source)
        if changed is not None:
            return changed
    for _ in range(source.choice([1, 1, 1, 2, 3, 8])):
        data = change_bytes(data, source)
    return data


def change_bytes(data: bytes, source: random.Random) -> bytes:
    start = source.randrange(len(data) + 1)
    end = min(len(data), start + source.choice([0, 1, 1, 2, 4, 8, 64, 1000]))
    kind = source.randrange(6)
    if kind == 0 and start < len(data):  # one bit
        flipped = data[start] ^ (1 << source.randrange(8))
        return data[:start] + bytes([flipped]) + data[start + 1 :]
    if kind == 1:  # the end is missing
        return data[:start]
    if kind == 2:  # a part is missing
        return data[:start] + data[end:]
    if kind == 3:  # a part stands twice
        return data[:end] + data[start:end] + data[end:]
    if kind == 4:  # a part stands elsewhere
        place = source.randrange(len(data) + 1)
        return data[:place] + data[start:end] + data[place:]
    return data[:start] + source.choice(PIECES) + data[end:]


def change_structure(data: bytes, name: str, source: random.Random) -> bytes | None:
    """A value, a key or a row changed; None where the form is unknown."""
    suffix = Path(name).suffix
    if suffix == ".json":
        return write_json(change_tree(json.loads(data), source), source)
    if suffix == ".jsonl":
        lines = data.splitlines()
        place = source.randrange(len(lines))
        changed = change_tree(json.loads(lines[place]), source)
        lines[place] = write_json(changed, source).replace(b"\n", b" ")
        return b"\n".join(lines) + b"\n"
    if suffix == ".safetensors":
        size = int.from_bytes(data[:8], "little")
        head = write_json(change_tree(json.loads(data[8 : 8 + size]), source), source)
        return len(head).to_bytes(8, "little") + head + data[8 + size :]
    if suffix in (".pt", ".pth"):
        import torch

        state = torch.load(io.BytesIO(data), weights_only=False)  # we wrote it
        file = io.BytesIO()
        torch.save(change_tree(state, source), file)
        return file.getvalue()
    return None


def write_json(value: Any, source: random.Random) -> bytes:
    text = json.dumps(value, ensure_ascii=source.random() < 0.5)
    if source.random() < 0.1 and text.startswith("{") and len(text) > 2:  # a key stands twice
        text = f"{text[:-1]}, {text[1:]}"
    return text.encode("utf-8", "surrogatepass")


def change_tree(tree: Any, source: random.Random) -> Any:
    """A value with one of its parts exchanged, removed, added or made twice."""
    places = list(walk(tree))
    parent, key = source.choice(places)
    if parent is None:
        return source.choice(VALUES)
    value = parent[key]
    kind = source.randrange(5)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[source.choice(KEYS)] = source.choice(VALUES)
    elif kind == 2 and isinstance(parent, list):
        parent.insert(key, value)
    elif kind == 3 and type(value) in (int, float):
        parent[key] = value + source.choice([-1, 1, 0.5, 10**6])
    elif hasattr(value, "dtype"):
        parent[key] = change_tensor(value, source)
    else:
        parent[key] = source.choice(VALUES)
    return tree


def change_tensor(value: Any, source: random.Random) -> Any:
    import torch

    changes: list[Callable[[], Any]] = [
        lambda: value[:-1] if value.ndim else value[None],
        lambda: torch.cat([value, value]) if value.ndim else value[None],
        lambda: value[None],
        lambda: value.reshape(-1),
        lambda: value.to(source.choice([torch.float64, torch.int64, torch.bool, torch.bfloat16])),
        lambda: torch.full_like(
            value, source.choice([0, 1, -1 if value.is_floating_point() else 0])
        ),
        lambda: value * float("nan"),
        lambda: torch.zeros(0),
        lambda: source.choice(VALUES),
    ]
    return source.choice(changes)()


def walk(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Where values stand: (None, None) for the whole, else what holds them and the key."""
    yield None, None
    stack = [tree]
    while stack:
        parent = stack.pop()
        parent = vars(parent) if isinstance(parent, argparse.Namespace) else parent
        items = parent.items() if isinstance(parent, dict) else enumerate(parent)
        if not isinstance(parent, dict | list):
            continue
        for key, value in items:
            yield parent, key
            if isinstance(value, dict | list | argparse.Namespace):
                stack.append(value)


# Cases.


def run_case(workspace: Path, target: Target, readers: list[Any], seed: int, number: int) -> str:
    """Changes the target's file in a copy of the workspace and lets one reader read it."""
    source = random.Random(f"{seed} {number}")
    with tempfile.TemporaryDirectory(dir=workspace.parent) as folder:
        copy = Path(folder, "copy")
        shutil.copytree(workspace, copy)
        file = copy / target.file
        file.write_bytes(change(file.read_bytes(), file.name, source))
        return str(source.choice(readers)(copy))


class Watch:
    """What cases did that no file may bring about."""

    def __init__(self, folder: Path) -> None:
        self.folder = os.path.realpath(folder)
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook."""
        if event in FORBIDDEN:
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path, flags = os.fsdecode(arguments[0]), arguments[2]
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or path == os.devnull:
                return
            if not os.path.realpath(path).startswith(self.folder + os.sep):
                self.seen.append(f"{event} {path!r:.200}")


def choose(targets: dict[str, Target], only: str | None, seed: int, number: int) -> str:
    names = [only] if only else list(targets)
    return names[random.Random(f"target {seed} {number}").randrange(len(names))]


def work(options: argparse.Namespace) -> None:
    """Runs cases and prints a line before and after each."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    from transformers.utils import logging

    logging.set_verbosity(50)  # nothing
    targets = make_targets()
    with tempfile.TemporaryDirectory(dir=options.workspace.parent) as folder:
        whole = Path(folder, "copy")
        shutil.copytree(options.workspace, whole)
        tried = [options.only] if options.only else targets
        for name, target in [(name, targets[name]) for name in tried]:  # and imports what it needs
            outcomes = {reader(whole) for reader in target.readers}
            assert outcomes == {"result"}, (name, outcomes)
    watch = Watch(options.workspace.parent)
    sys.addaudithook(watch)
    tempfile.tempdir = str(options.workspace.parent)
    started = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = started + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in range(options.first, options.last):
        name = choose(targets, options.only, options.seed, number)
        print(f"case {number} {name}", flush=True)
        try:
            outcome = run_case(
                options.workspace, targets[name], targets[name].readers, options.seed, number
            )
            if watch.seen:
                raise AssertionError("; ".join(watch.seen))
        except BaseException:  # a KeyboardInterrupt that a reader raises is a failure too
            text = traceback.format_exc()
            outcome = "failed " + json.dumps(text[-4000:])
        watch.seen.clear()
        print(f"done {outcome}", flush=True)


def drive(
    examples: int, seed: int, only: str | None, first: int = 0, seconds: float = math.inf
) -> tuple[Counter[str], list[str]]:
    """Counts of outcomes by file, and what failed, of the cases that the time suffices for.

    After a process that died a new one is started.
    """
    end = time.monotonic() + seconds
    counts: Counter[str] = Counter()
    failures: list[str] = []
    number = first
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder, "workspace")
        workspace.mkdir()
        build(workspace)
        while number < first + examples:
            arguments = ["--work", str(workspace), "--first", str(number), "--seed", str(seed)]
            arguments += ["--last", str(first + examples), *(["--only", only] if only else [])]
            errors = Path(folder, "errors")
            with errors.open("wb") as standard_error:
                process = subprocess.Popen(
                    [sys.executable, __file__, *arguments],
                    stdout=subprocess.PIPE,
                    stderr=standard_error,
                )
                name, ended = "start", False
                for line in read_lines(process):
                    word, _, rest = line.partition(" ")
                    if word == "case":
                        number, name = int(rest.split()[0]), rest.split()[1]
                        ended = False
                    elif word == "done":
                        outcome, _, text = rest.partition(" ")
                        counts[f"{name}: {outcome}"] += 1
                        if outcome == "failed":
                            failures.append(f"case {number}, {name}:\n{json.loads(text)}")
                        number, ended = number + 1, True
                        if time.monotonic() > end:
                            examples = number - first
                            break
                process.kill()
                code = process.wait()
                assert process.stdout is not None
                process.stdout.close()
            if number < first + examples:
                last = errors.read_text(errors="replace")[-2000:]
                if name == "start":
                    raise RuntimeError(f"no case was begun: exit code {code}: {last}")
                if not ended:
                    counts[f"{name}: failed"] += 1
                    failures.append(f"case {number}, {name}: the process ended with {code}: {last}")
                    number += 1
    return counts, failures


def read_lines(process: "subprocess.Popen[bytes]") -> Iterator[str]:
    """Lines of a process, until it ends or says nothing for too long."""
    assert process.stdout is not None
    held, seconds = b"", START_SECONDS
    while select.select([process.stdout], [], [], seconds)[0]:
        data = os.read(process.stdout.fileno(), 1 << 16)
        if not data:
            return
        seconds = TIMEOUT_SECONDS
        *lines, held = (held + data).split(b"\n")
        for line in lines:
            yield line.decode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf, help="end after this time")
    parser.add_argument("--only", help="one kind of file, such as state.pt")
    parser.add_argument("--case", type=int, help="this case alone")
    parser.add_argument("--work", dest="workspace", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--last", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.workspace is not None:
        work(options)
        return 0
    if options.case is not None:
        counts, failures = drive(1, options.seed, options.only, options.case)
    else:
        counts, failures = drive(
            options.examples, options.seed, options.only, seconds=options.seconds
        )
    for failure in failures[:20]:
        print(failure, file=sys.stderr)
    for name in sorted(counts):
        print(f"{name:32}{counts[name]:>9}")
    print(f"{sum(counts.values())} files, seed {options.seed}: {len(failures)} failed")
    return int(bool(failures))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main())
