"""Every option of every command, found by walking the tree of commands: none can be forgotten."""

import dataclasses
import importlib
import json
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import typer

import tiny_chains
import tiny_fillers
from commands import SMALL, check_line, run_here, write_pairs
from lmcore.cli.commands import PACKAGES
from lmcore.cli.options import Decimal, Whole, limit_threads, name_of_file
from lmcore.compression.record import Record, write_record
from lmcore.diffusion.models import make_model as make_diffusion_model
from lmcore.diffusion.models import save_model
from lmcore.ner.models import make_model, make_tokenizer
from lmcore.ner.recipes import ScratchConfig
from lmcore.recsys.recipes import TrainConfig
from lmcore.training.config import Between, change
from lmcore.worlds.diffusion import list_tokens
from lmcore.worlds.openba import write_piece_file
from megatron_files import write_checkpoint
from prediction_rows import VALID, write_rows
from tiny_detox import save_segment_cnn
from tiny_diffusion import make_tokenizer as make_words
from tiny_diffusion import small
from tiny_generation import save_pair
from tiny_openba import make_model as make_openba
from tiny_questions import make_pairs, write_json

ATTEMPTS = [
    "-1", "0", "2147483648", "9223372036854775808", "18446744073709551616", "nan", "NaN", "inf",
    "1e400", "1.5", "", " ", " 1", "1_0", "0x10", "١٢", "１", "x", "9" * 5000,
]  # fmt: skip

# How each option that holds no number is meant; a new one has to be named here.
NAMES = {"file", "files", "html", "data", "out", "model", "against", "template"} | {
    "dev", "source", "target", "valid", "record", "new_tokenizer", "plan", "after", "counts",
    "prove", "scores", "output", "perplexity", "bertscore", "plot", "distill", "scorer", "cache",
    "checkpoint", "similarity", "fluency", "sheet", "answers", "filler", "spans", "gold",
    "predicted", "templates", "identity", "mixture", "texts", "tasks", "losses", "teacher", "path",
}  # fmt: skip
CHOICES = {
    "scheme", "data_format", "device", "backbone", "recipe", "protocol", "split", "ties", "only",
    "context", "boundaries", "sampling", "form", "precision", "dtype", "by", "choose", "layers",
    "schedule", "solver", "grammar", "ratio", "target_format", "task", "prompts",
    "metric", "split_by", "cold_items",
}  # fmt: skip
TEXTS = {"text", "types", "prediction", "tokenizer", "settings", "users", "dataset"} | {
    "groups", "key", "column", "name", "keep_per", "proportions", "label", "field", "fluency_label",
    "label_field", "without", "language", "prompt", "targets", "divisor", "least", "valid_from",
    "test_from", "user_column", "item_column", "time_column",
}  # fmt: skip
FLAGS = {"as_json", "skip_bad_rows", "resume", "quiet", "full", "tiny", "fresh", "strict"} | {
    "keep_order", "name_dataset", "over_sample", "by_type", "merge", "constrained", "recompute",
    "swiglu_rule", "tied", "plain", "drop", "logits", "latency", "clamp", "group_references",
    "words", "unpickle", "every", "check", "released", "repeat", "of_pairs",
    "baselines",
}  # fmt: skip

# A complete command line of each command; {} stands for files that are there.
COMPLETE: dict[str, list[str]] = {
    "compression count": ["TEXT", "--tokenizer", "PIECES", "--out", "RUN"],
    "compression remap": ["TOKENS", "RUN", "--record", "RECORD", "--fill", "0"],
    "detox chains": ["CONTINUED", "ALIGNED"],
    "detox continue": ["PROMPTS", "ALIGNED", "--model", "WRITER"],
    "detox evaluate": ["SCORES"],
    "detox fill": ["PROMPTS", "ALIGNED", "--filler", "BART", "--scorer", "LEXICON"],
    "detox generate": ["WRITER", "TEXT", "ALIGNED"],
    "detox mask": ["PROMPTS", "ALIGNED", "--model", "SEGMENTS"],
    "detox recipe": ["tiny"],
    "detox run": [
        "PROMPTS",
        "ALIGNED",
        "--spans",
        "SEGMENTS",
        "--filler",
        "BART",
        "--model",
        "WRITER",
        "--scorer",
        "LEXICON",
    ],
    "detox score-spans": ["GOLD", "--model", "SEGMENTS"],
    "detox score": ["LABELLED", "ALIGNED", "--scorer", "LEXICON"],
    "detox select": ["CONTINUED", "ALIGNED"],
    "detox span-recipe": ["tiny"],
    "detox spans": ["PROMPTS", "ALIGNED", "--model", "SEGMENTS"],
    "detox train": ["tiny", "--data", "CHAINS", "--out", "RUN"],
    "detox train-scorer": ["LABELLED", "--out", "RUN"],
    "detox train-spans": ["SCORED", "--recipe", "tiny", "--model", "SEGMENTS", "--out", "RUN"],
    "diffusion mbr": ["GENERATED", "--output", "ALIGNED"],
    "diffusion profile": ["DIFFUSION", "TARGETS", "--out", "ALIGNED"],
    "diffusion score": ["GENERATED", "--bertscore", "LABELLER"],
    "ner score": ["ROWS"],
    "ner align": ["ROWS", "ALIGNED"],
    "ner data": ["ROWS", "ALIGNED"],
    "ner errors": ["ROWS"],
    "ner train": ["tiny", "--data", "EXAMPLES", "--out", "RUN"],
    "ner recipe": ["tiny"],
    "ner predict": ["LABELLER", "ROWS", "ALIGNED"],
    "compression cost": ["PLAN"],
    "compression learn-masks": [
        "OPENBA",
        "RUN",
        "--data",
        "TEXT",
        "--target",
        "params=99%",
        "--recipe",
        "tiny_masks",
        "--steps",
        "1",
    ],
    "compression path": ["PATH", "RUN"],
    "compression plan": ["CONFIG", "ALIGNED", "--target", "params=90%"],
    "compression prune": ["OPENBA", "RUN", "--plan", "PLAN"],
    "compression recipe": ["openba_v2"],
    "compression recover": ["OPENBA", "RUN", "--data", "TEXT", "--recipe", "tiny"],
    "compression vocabulary": ["OPENBA", "RUN", "--counts", "TEXT", "--keep", "1000"],
    "diffusion train": ["tiny", "--data", "TARGETS", "--tokenizer", "WORDS", "--out", "RUN"],
    "diffusion recipe": ["tiny"],
    "diffusion sample": ["DIFFUSION", "TARGETS", "ALIGNED"],
    "openba convert": ["TRAINING", "--out", "RUN"],
    "openba chain": ["RUN"],
    "openba clean": ["TEXT", "--out", "RUN"],
    "openba cost": ["CONFIG"],
    "openba export": ["OPENBA", "--out", "RUN"],
    "openba format": ["chat", "CHAT", "--out", "ALIGNED"],
    "openba evaluate": ["OPENBA", "--task", "mmlu", "--data", "QUESTIONS"],
    "openba generate": ["OPENBA", "TEXT", "--out", "ALIGNED"],
    "openba instructions": ["TASKS", "--templates", "TEMPLATES", "--out", "ALIGNED"],
    "openba pack": ["TEXT", "--tokenizer", "PIECES", "--out", "RUN"],
    "openba train": ["tiny", "--data", "TOKENS", "--tokenizer", "PIECES", "--out", "RUN"],
    "openba recipe": ["tiny"],
    "recsys train": ["plain", "--data", "PAIRS", "--out", "RUN"],
    "recsys recipe": ["plain"],
    "recsys evaluate": ["MODEL", "--data", "PAIRS"],
    "recsys recommend": ["MODEL", "1"],
    "reproduce": [],
}


class Parameter(NamedTuple):
    """A parameter of a command as its function declares it."""

    command: str
    name: str
    kind: Any
    """Its type, without None."""
    option: str
    """Its longest name; empty for an argument."""
    parser: Any


def walk() -> Iterator[Parameter]:
    """Every parameter of every command."""
    for package in PACKAGES:
        group = importlib.import_module(f"lmcore.cli.{package}").app
        assert isinstance(group, typer.Typer)
        assert not group.registered_groups
        # The only command of a package has the package's name.
        is_group = len(group.registered_commands) > 1 or group.registered_callback is not None
        yield from walk_group(group, (package,) if is_group else ())


def walk_group(group: typer.Typer, path: tuple[str, ...]) -> Iterator[Parameter]:
    for command in group.registered_commands:
        function = command.callback
        assert function is not None
        for name, hint in get_type_hints(function, include_extras=True).items():
            if name == "return":
                continue
            kind, info = get_args(hint)
            # Within Annotated, the first name stands where a default would.
            names = [n for n in (info.default, *(info.param_decls or ())) if isinstance(n, str)]
            declared = [n for n in names if n.startswith("--")]
            option = declared[0] if declared else f"--{name.replace('_', '-')}"
            if isinstance(info, typer.models.ArgumentInfo):
                option = ""
            inner = [part for part in get_args(kind) if part is not type(None)]
            is_optional = get_origin(kind) in (Union, types.UnionType)
            plain = inner[0] if is_optional and inner else kind
            yield Parameter(" ".join((*path, str(command.name))), name, plain, option, info.parser)


PARAMETERS = list(walk())
NUMBERS = [p for p in PARAMETERS if isinstance(p.parser, Whole)]
DECIMALS = [p for p in PARAMETERS if isinstance(p.parser, Decimal)]


def label(value: Any) -> str:
    return f"{value.command} {value.name}" if isinstance(value, Parameter) else ascii(value)[:20]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("options")
    pairs = write_pairs(folder / "pairs.txt")
    arguments = ["--data", pairs, "--out", folder / "model", "--epochs", 1, *SMALL]
    assert run_here("recsys", "train", "plain", *arguments)[0] == 0
    examples = write_rows(folder / "examples.jsonl", [{"instruction": "Ada", "target": "Ada(O)"}])
    tokenizer = make_tokenizer(["Ada(O)"], 300)
    for part in (tokenizer, make_model(ScratchConfig(hidden_size=8), tokenizer)):
        part.save_pretrained(folder / "labeller")
    write_piece_file(folder / "spiece.model")
    save_pair(folder / "openba")
    write_checkpoint(folder / "training", make_openba(vocab_size=64, add_ffn_bias=False), 1)
    (folder / "config.json").write_text('{"model_type": "openba"}')
    (folder / "text.txt").write_text("Ada met Otto.\n" * 200)
    plan = [folder / "openba", folder / "plan.json", "--decoder-layers", 2, "--layers", "spread"]
    assert run_here("compression", "plan", *plan)[0] == 0
    stage = {"name": "first", "sizes": {"decoder_layers": 2}}
    path = {"format": "lmcore-path", "version": 1, "model": "openba", "stages": [stage]}
    (folder / "path.json").write_text(json.dumps(path))
    pack = ["--tokenizer", folder / "spiece.model", "--length", 126, "--out", folder / "tokens"]
    assert run_here("openba", "pack", folder / "text.txt", *pack, "--quiet")[0] == 0
    targets = write_rows(folder / "targets.jsonl", [{"src": "the thief", "trg": "the robber"}])
    (folder / "words.txt").write_text("".join(f"{token}\n" for token in list_tokens()))
    (folder / "diffusion").mkdir()
    save_model(make_diffusion_model(small(), make_words()), make_words(), folder / "diffusion")
    save_segment_cnn(folder / "segments")
    write_record(folder, Record(source="0" * 32, vocabulary_ids=np.arange(3)))
    continued = {"prompt": "a", "generation": ["b", "c"], "cont_toxicity": [0.1, 0.9]}
    chain = tiny_chains.make_row("sea", None)
    generated = {"recover": "a b", "reference": "a c", "source": "b"}
    (folder / "lexicon.txt").write_text("blap\n")
    labelled = write_rows(folder / "labelled.jsonl", [{"text": "a blap", "label": 1}])
    task = [{"text": "a", "target": "b", "language": name} for name in ("en", "zh")]
    templates = {"tasks": [{"source": "{text}", "target": "{target}"}]}
    gold = write_rows(folder / "gold.jsonl", [{"text": "you are bad", "spans": [8, 9, 10]}])
    return {
        "LEXICON": str(folder / "lexicon.txt"),
        "LABELLED": str(labelled),
        "SCORES": str(write_rows(folder / "scores.jsonl", [{"scores": [0.5]}])),
        "CONTINUED": str(write_rows(folder / "continued.jsonl", [continued])),
        "CHAINS": str(write_rows(folder / "chains.jsonl", [chain])),
        "BART": str(tiny_fillers.save("bart", folder / "bart")),
        "WRITER": str(tiny_chains.save("gpt2", folder / "writer")),
        "DIFFUSION": str(folder / "diffusion"),
        "GENERATED": str(write_rows(folder / "generated.jsonl", [generated])),
        "RECORD": str(folder),
        "PROMPTS": str(write_rows(folder / "prompts.jsonl", [{"prompt": "you are bad"}])),
        "SCORED": str(write_rows(folder / "scored.jsonl", [{"content": "you are", "score": [0]}])),
        "GOLD": str(gold),
        "CHAT": str(write_rows(folder / "chat.jsonl", [{"conversations": ["Hi.", "Hello."]}])),
        "TASKS": str(write_rows(folder / "tasks.jsonl", task)),
        "TEMPLATES": str(write_rows(folder / "templates.json", [templates])),
        "SEGMENTS": str(folder / "segments"),
        "TARGETS": str(targets),
        "WORDS": str(folder / "words.txt"),
        "TOKENS": str(folder / "tokens"),
        "QUESTIONS": str(write_json(folder / "questions.json", make_pairs(1))),
        "CONFIG": str(folder / "config.json"),
        "PLAN": str(folder / "plan.json"),
        "PATH": str(folder / "path.json"),
        "OPENBA": str(folder / "openba"),
        "TRAINING": str(folder / "training"),
        "PIECES": str(folder / "spiece.model"),
        "TEXT": str(folder / "text.txt"),
        "EXAMPLES": str(examples),
        "LABELLER": str(folder / "labeller"),
        "ROWS": str(write_rows(folder / "rows.jsonl", [VALID])),
        "PAIRS": str(pairs),
        "MODEL": str(folder / "model"),
        "RUN": str(folder / "run"),
        "ALIGNED": str(folder / "aligned.jsonl"),
    }


def complete(name: str, places: dict[str, str]) -> list[str]:
    return [*name.split(), *(places.get(part, part) for part in COMPLETE[name])]


def test_every_command_and_option_is_known() -> None:
    assert {parameter.command for parameter in PARAMETERS} == set(COMPLETE)
    for parameter in PARAMETERS:
        kinds = [parameter.name in kind for kind in (NAMES, CHOICES, TEXTS, FLAGS)]
        is_number = isinstance(parameter.parser, Whole | Decimal)
        assert sum(kinds) + is_number == 1, parameter
        assert (parameter.kind in (int, float)) == is_number, parameter
        assert (parameter.kind is bool) == (parameter.name in FLAGS), parameter
        if parameter.name in NAMES:
            assert parameter.parser is name_of_file, parameter


def test_ranges_stand_in_the_help() -> None:
    assert len(NUMBERS) >= 10
    for parameter in [*NUMBERS, *DECIMALS]:
        text = " ".join(run_here(*parameter.command.split(), "--help")[1].split())
        pattern = rf"{parameter.option} \w+ .*?\[{parameter.parser.range}\]"
        assert re.search(pattern, text), parameter


@pytest.mark.parametrize("parameter", NUMBERS, ids=label)
def test_numbers(places: dict[str, str], parameter: Parameter) -> None:
    """What lies outside of the range exits with 2 and names the option, before any work."""
    parser, option = parameter.parser, parameter.option
    assert (parser(str(parser.low)), parser(str(parser.high))) == (parser.low, parser.high)
    outside = [str(parser.low - 1), str(parser.high + 1)]
    for attempt in [*ATTEMPTS, *outside]:
        digits = re.fullmatch(r"-?[0-9]{1,25}", attempt)
        if digits and parser.low <= int(attempt) <= parser.high:
            continue
        code, output, errors = run_here(*complete(parameter.command, places), f"{option}={attempt}")
        assert (code, output) == (2, ""), attempt
        assert option in errors
        assert f"expected a whole number from {parser.range}: got '" in errors
        assert len(errors) < 500
    assert not Path(places["RUN"]).exists()


@pytest.mark.parametrize("parameter", DECIMALS, ids=label)
def test_decimals(places: dict[str, str], parameter: Parameter) -> None:
    parser, option = parameter.parser, parameter.option
    assert (parser(str(parser.low)), parser(str(parser.high))) == (parser.low, parser.high)
    assert parser(f"{parser.low}5") == float(f"{parser.low}5")
    for attempt in [*ATTEMPTS, "1e0", ".5", "-0.1", str(parser.high + 0.5)]:
        digits = re.fullmatch(r"[0-9]{1,20}(\.[0-9]+)?", attempt)
        if digits and parser.low <= float(attempt) <= parser.high:
            continue
        code, output, errors = run_here(*complete(parameter.command, places), f"{option}={attempt}")
        assert (code, output) == (2, ""), attempt
        assert option in errors
        assert f"expected a number from {parser.range}: got '" in errors
        assert len(errors) < 500


@pytest.mark.parametrize("parameter", [p for p in PARAMETERS if p.name in CHOICES], ids=label)
@pytest.mark.parametrize("attempt", ["other", "", "-1", "nan", "\ud800"], ids=ascii)
def test_choices(places: dict[str, str], parameter: Parameter, attempt: str) -> None:
    arguments = complete(parameter.command, places)
    if parameter.option:
        arguments += [f"{parameter.option}={attempt}"]
    else:
        arguments[2:3] = ["--", attempt] if attempt == "-1" else [attempt]
        if attempt == "-1":  # options come before what ends them
            arguments = [*arguments[:2], *arguments[4:], *arguments[2:4]]
    if parameter.command == "reproduce":
        arguments += ["--out", f"{places['RUN']}/never"]
    code, output, errors = run_here(*arguments)
    assert (code, output) == (2, ""), errors
    words = {"data_format": "format", "recipe": "RECIPE", "target_format": "instruction-gen"}
    words["split_by"] = "split must be by one of"
    last = errors.splitlines()[-1]
    assert re.match(r"lmcore: |Error: ", last)
    assert words.get(parameter.name, parameter.name) in last
    assert "Traceback" not in errors


@pytest.mark.parametrize("device", ["meta", "cpu:-1", "cuda", "cuda:99", "vulkan", "mkldnn", "gpu"])
def test_devices(places: dict[str, str], device: str) -> None:
    import torch

    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for name in ("recsys evaluate", "recsys recommend"):
        check_line(run_here(*complete(name, places), "--device", device), "device")
    result = run_here(*complete("recsys train", places), "--device", device, "--quiet")
    check_line(result, "device")


@pytest.mark.parametrize(
    "attempt", ["lr", "=1", "speed=1", "", "lr=1=2", "a\x1b=1", "lr=" + "[" * 9**5]
)
def test_assignments(attempt: str) -> None:
    check_line(run_here("recsys", "recipe", "plain", "--set", attempt))


# Settings.


def has_number(hint: Any) -> bool:
    """Whether a value of this type may be a number; a truth value is none."""
    if get_origin(hint) in (Union, types.UnionType, tuple):
        return any(map(has_number, get_args(hint)))
    return hint in (int, float)


def walk_settings(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and types of all settings, through all levels."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            yield from walk_settings(hint, f"{prefix}{name}.")
        else:
            yield prefix + name, hint


def find(config: Any, name: str) -> Any:
    """The value of a setting."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


SETTINGS = {
    name: hint
    for name, hint in walk_settings(TrainConfig)
    if has_number(get_args(hint)[0] if get_origin(hint) is Annotated else hint)
}


def find_range(name: str) -> tuple[Between, Any]:
    hint, *metadata = get_args(SETTINGS[name])
    (found,) = [item for item in metadata if isinstance(item, Between)]
    return found, hint


def test_every_numeric_setting_has_a_range() -> None:
    assert len(SETTINGS) > 20
    assert {name for name, hint in SETTINGS.items() if get_origin(hint) is not Annotated} == set()
    defaults = TrainConfig()
    for name in SETTINGS:
        found, _ = find_range(name)
        value = find(defaults, name)
        for number in value if isinstance(value, tuple) else [value]:
            assert not isinstance(number, int | float) or number in found


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name: str) -> None:
    found, hint = find_range(name)
    is_whole = float not in get_args(hint) and hint is not float
    pair = get_origin(hint) is tuple
    tried = 0
    for attempt in [*ATTEMPTS, "Infinity", "-Infinity", "1e30", "-1e-300", "true", '"1"', "[]"]:
        try:
            value = float(attempt) if attempt.isascii() and "_" not in attempt else None
        except ValueError:
            value = None
        # JSON has no spaces within a number, and `1.5` is no whole one.
        usable = value is not None and value in found and not (is_whole and "." in attempt)
        if usable and attempt.strip() == attempt and not pair:
            continue
        given = f"[0.5, {attempt}]" if pair else attempt
        if (pair and usable) or (attempt == " 1" and 1 in found):
            continue
        code, output, errors = run_here("recsys", "recipe", "plain", "--set", f"{name}={given}")
        assert (code, output) == (2, ""), attempt
        assert re.match(rf"lmcore: {name} must be ", errors), errors
        assert len(errors) < 300
        tried += 1
    assert tried > 10


@pytest.mark.parametrize("name", SETTINGS)
def test_bounds_of_settings(name: str) -> None:
    found, hint = find_range(name)
    if get_origin(hint) is tuple:
        return
    for bound, is_open, step in [(found.low, found.open_low, -1), (found.high, found.open_high, 1)]:
        for value, fits in [(bound, not is_open), (bound + step * (abs(bound) or 1), False)]:
            if isinstance(find(TrainConfig(), name), float):
                value = float(value)
            changes: dict[str, Any] = {name: value}
            if name == "alpha":
                changes |= {"mining": True, "ema_decay": 0.5}
            if name in ("schedule.decay_steps", "schedule.final_share"):
                changes |= {"schedule.kind": "linear"}
            needed: dict[str, dict[str, Any]] = {
                "gbce_t": {"loss": "gbce"},
                "temperature": {"loss": "cross_entropy"},
                "exponent": {"distribution": "popularity"},
            }
            changes |= needed.get(name, {})
            if fits:
                assert find(change(TrainConfig(), changes), name) == value
            else:
                with pytest.raises(ValueError, match=f"{name} must be "):
                    change(TrainConfig(), changes)


def test_literals_are_checked() -> None:
    choices = {
        name: hint for name, hint in walk_settings(TrainConfig) if get_origin(hint) is Literal
    }
    assert {"backbone", "schedule.kind", "device.precision"} <= set(choices)
    for name in choices:
        result = run_here("recsys", "recipe", "plain", "--set", f"{name}=other")
        check_line(result, f"{name} must be ")
    assert dataclasses.is_dataclass(TrainConfig)


# Threads.


def test_more_threads_than_cores(
    places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert limit_threads(None) is None
    assert limit_threads(1) == 1
    most = limit_threads(100_000)
    assert most is not None
    assert most <= 1000
    line = f"lmcore: --threads 100000 is more than 4 for each core: {most} are started\n"
    assert capsys.readouterr().err == line
    few = run_here(*complete("ner score", places), "--threads", 1)
    many = run_here(*complete("ner score", places), "--threads", 100_000)
    assert many == (0, few[1], line)
    for name in ("recsys evaluate", "ner align"):
        code, _, errors = run_here(*complete(name, places), "--threads", 2**31 - 1)
        assert (code, errors.count("are started")) == (0, 1)
