"""How long a model takes before its first token and for each one after it, measured here.

Fewer parameters are not as much less time: a shallower model saves steps that wait for each other,
a narrower one work within a step. So times stand beside the ratio of parameters.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from lmcore._extras import optional_imports

_MOST = 2**63 - 1


@dataclass(kw_only=True, slots=True, frozen=True)
class Latency:
    """Times of a model: medians of rounds.

    Example:
        >>> Latency(parameters=100, prefill_seconds=0.5, token_seconds=0.25).cached
        True
    """

    parameters: int
    """Distinct ones, in memory."""
    prefill_seconds: float
    """Of the prompt and the first token; of an encoder alone, of the prompt."""
    token_seconds: float | None = None
    """Of each token after the first; None of an encoder alone."""
    cached: bool = True
    """Whether tokens are generated from a cache: see `Family.shallow_cache`."""


@dataclass(kw_only=True, slots=True, frozen=True)
class LatencyReport:
    """Times of a model and of what was made of it, and where they were measured.

    Example:
        >>> times = Latency(parameters=100, prefill_seconds=0.5)
        >>> report = LatencyReport(device="cpu", dtype="float32", threads=1, versions={},
        ...     prompt_tokens=8, new_tokens=4, rounds=1, original=times, pruned=times)
        >>> load_report(dump_report(report)) == report
        True
    """

    device: str
    """As it calls itself."""
    dtype: str
    """Of the weights of the original."""
    threads: int
    """Of the CPU."""
    versions: Mapping[str, str]
    """Of torch and transformers."""
    prompt_tokens: int
    new_tokens: int
    rounds: int
    original: Latency
    pruned: Latency


def measure_latency(
    folder: str | os.PathLike[str],
    *,
    prompt_tokens: int = 128,
    new_tokens: int = 32,
    rounds: int = 5,
    device: str = "auto",
    progress: Callable[[int], object] | None = None,
) -> Latency:
    """Returns the times of a model on one prompt, in the type of its files.

    Tokens are generated greedily by transformers, all that are asked for. One round before the
    first is not counted.

    Args:
        folder: of the model.
        prompt_tokens: that are read: by the encoder, where there is one.
        new_tokens: that are generated, at least 2.
        rounds: of which times are medians.
        device: as for `lmcore.training.processes.find_device`.
        progress: called with 1 after each round.

    Raises:
        ImportError: torch or transformers is not installed.
        OSError: a file cannot be read.
        ValueError: the model cannot be loaded, or cannot read so many tokens, or a number is below
            its least.

    Example:
        >>> import tempfile
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> config = GPT2Config(vocab_size=9, n_layer=1, n_embd=8, n_head=2, bos_token_id=None,
        ...     eos_token_id=None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     GPT2LMHeadModel(config).save_pretrained(folder)
        ...     found = measure_latency(folder, prompt_tokens=4, new_tokens=2, rounds=1)
        >>> found.parameters, found.prefill_seconds > 0
        (9152, True)
    """
    return _measure(folder, prompt_tokens, new_tokens, rounds, device, progress)[0]


def compare_latency(
    original: str | os.PathLike[str],
    pruned: str | os.PathLike[str],
    *,
    prompt_tokens: int = 128,
    new_tokens: int = 32,
    rounds: int = 5,
    device: str = "auto",
    progress: Callable[[int], object] | None = None,
) -> LatencyReport:
    """Returns the times of two models, which are loaded one after the other.

    Args:
        original: folder of a model.
        pruned: folder of another.
        prompt_tokens: as for `measure_latency`.
        new_tokens: likewise.
        rounds: likewise.
        device: likewise.
        progress: called with 1 after each round of either.

    Raises:
        ImportError: torch or transformers is not installed.
        OSError: a file cannot be read.
        ValueError: as for `measure_latency`.

    Example:
        >>> import tempfile
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> config = GPT2Config(vocab_size=9, n_layer=1, n_embd=8, n_head=2, bos_token_id=None,
        ...     eos_token_id=None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     GPT2LMHeadModel(config).save_pretrained(folder)
        ...     report = compare_latency(
        ...         folder, folder, prompt_tokens=4, new_tokens=2, rounds=1, device="cpu")
        >>> report.dtype, report.original.parameters == report.pruned.parameters
        ('float32', True)
    """
    options = (prompt_tokens, new_tokens, rounds, device, progress)
    first, about = _measure(original, *options)
    second, _ = _measure(pruned, *options)
    return LatencyReport(
        **about, prompt_tokens=prompt_tokens, new_tokens=new_tokens, rounds=rounds, original=first,
        pruned=second,
    )  # fmt: skip


def record_latency(folder: str | os.PathLike[str], report: LatencyReport) -> None:
    """Writes times into the `pruning.json` of a pruned model, in place of those that it had.

    Args:
        folder: of the pruned model.
        report: the times.

    Raises:
        OSError: the record cannot be read or written.
        ValueError: it is no record.

    Example:
        >>> import tempfile
        >>> from lmcore.compression.record import Record, read_record, write_record
        >>> times = Latency(parameters=100, prefill_seconds=0.5)
        >>> report = LatencyReport(device="cpu", dtype="float32", threads=1, versions={},
        ...     prompt_tokens=8, new_tokens=4, rounds=1, original=times, pruned=times)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_record(folder, Record(source="ab"))
        ...     record_latency(folder, report)
        ...     read_record(folder).latency == report
        True
    """
    from lmcore.compression.record import read_record, write_record

    write_record(folder, replace(read_record(folder), latency=report))


def format_latency(report: LatencyReport) -> list[str]:
    r"""Returns the lines of a table: times in milliseconds beside parameters, and ratios.

    Args:
        report: the times.

    Example:
        >>> times = Latency(parameters=100, prefill_seconds=0.5, token_seconds=0.25)
        >>> small = Latency(parameters=50, prefill_seconds=0.2, token_seconds=0.125)
        >>> report = LatencyReport(device="cpu", dtype="float32", threads=1, versions={},
        ...     prompt_tokens=8, new_tokens=4, rounds=1, original=times, pruned=small)
        >>> print("\n".join(format_latency(report)))
                  parameters  prefill ms  ms/token
        original         100      500.00    250.00
        pruned            50      200.00    125.00
        ratio          0.500       0.400     0.500
    """
    from lmcore._tables import format_table

    pair = (report.original, report.pruned)
    rows = [
        [name, f"{one.parameters:,}", f"{one.prefill_seconds * 1e3:,.2f}",
         "-" if one.token_seconds is None else f"{one.token_seconds * 1e3:,.2f}"]
        for name, one in zip(("original", "pruned"), pair, strict=True)
    ]  # fmt: skip
    ratios = [_divide(getattr(report.pruned, name), getattr(report.original, name))
              for name in ("parameters", "prefill_seconds", "token_seconds")]  # fmt: skip
    rows.append(["ratio", *ratios])
    return format_table(rows, ("", "parameters", "prefill ms", "ms/token"))


def dump_report(report: LatencyReport) -> dict[str, Any]:
    """Returns times as JSON has them.

    Args:
        report: the times.

    Example:
        >>> times = Latency(parameters=100, prefill_seconds=0.5)
        >>> dump_report(LatencyReport(device="cpu", dtype="float32", threads=1, versions={},
        ...     prompt_tokens=8, new_tokens=4, rounds=1, original=times, pruned=times))["rounds"]
        1
    """
    return asdict(report)


def load_report(content: Any) -> LatencyReport:
    """Returns the times that JSON holds.

    Args:
        content: as `dump_report` returns it.

    Raises:
        TypeError: a field lacks, is unknown or has another type.
        ValueError: a number is out of its range.

    Example:
        >>> load_report({})
        Traceback (most recent call last):
        TypeError: latency must have device, dtype, threads, versions, prompt_tokens, new_tokens, \
rounds, original, pruned
    """
    found = _take_fields("latency", content, LatencyReport)
    for name in ("device", "dtype"):
        _check_text(name, found[name])
    for name in ("threads", "prompt_tokens", "new_tokens", "rounds"):
        _check_count(name, found[name])
    if not isinstance(found["versions"], dict):
        raise TypeError(f"versions must be an object: got {found['versions']!r:.60}")
    for version in found["versions"].values():
        _check_text("versions", version)
    for name in ("original", "pruned"):
        times = _take_fields(name, found[name], Latency)
        _check_count("parameters", times["parameters"])
        _check_seconds("prefill_seconds", times["prefill_seconds"])
        if times["token_seconds"] is not None:
            _check_seconds("token_seconds", times["token_seconds"])
        if not isinstance(times["cached"], bool):
            raise TypeError(f"cached must be true or false: got {times['cached']!r:.60}")
        found[name] = Latency(**times)
    return LatencyReport(**found)


def _measure(
    folder: str | os.PathLike[str],
    prompt_tokens: int,
    new_tokens: int,
    rounds: int,
    device: str,
    progress: Callable[[int], object] | None,
) -> tuple[Latency, dict[str, Any]]:
    with optional_imports():
        import transformers

        from lmcore.training.processes import find_device
    from lmcore.compression.loading import find_kind, load_model
    from lmcore.compression.vocabulary_tensors import load_config

    for name, value, least in (("prompt_tokens", prompt_tokens, 1), ("new_tokens", new_tokens, 2),
                               ("rounds", rounds, 1)):  # fmt: skip
        if value < least:
            raise ValueError(f"{name} must be at least {least}: got {value}")
    place = find_device(device)
    kind = find_kind(load_config(folder))
    # An encoder alone is used by its states.
    found = transformers.AutoModel if kind == "encoder" else None
    model = load_model(folder, found, dtype="auto", device=str(place))
    _check_room(folder, model.config, kind, prompt_tokens, new_tokens)
    latency = time_model(
        model, kind, prompt_tokens=prompt_tokens, new_tokens=new_tokens, rounds=rounds,
        cached=_can_cache(folder), progress=progress,
    )  # fmt: skip
    return latency, describe_place(model)


def describe_place(model: Any) -> dict[str, Any]:
    """Returns where a model computes: device, type, threads and versions.

    Args:
        model: of transformers.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> config = GPT2Config(vocab_size=9, n_layer=1, n_embd=8, n_head=2)
        >>> describe_place(GPT2LMHeadModel(config))["dtype"]
        'float32'
    """
    with optional_imports():
        import torch
        import transformers
    on_cuda = model.device.type == "cuda"
    name = torch.cuda.get_device_name(model.device) if on_cuda else _name_processor()
    return {
        "device": name, "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }  # fmt: skip


def time_model(
    model: Any,
    kind: str,
    *,
    prompt_tokens: int = 128,
    new_tokens: int = 32,
    rounds: int = 5,
    cached: bool = True,
    progress: Callable[[int], object] | None = None,
) -> Latency:
    """Returns the times of a model that is loaded, as `measure_latency` measures them.

    Args:
        model: of transformers, in the mode of evaluation, where it shall be timed.
        kind: as `lmcore.compression.loading.find_kind` names it.
        prompt_tokens: that are read.
        new_tokens: that are generated.
        rounds: of which times are medians.
        cached: whether it generates from a cache.
        progress: called with 1 after each round.

    Raises:
        ImportError: torch is not installed.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> config = GPT2Config(vocab_size=9, n_layer=1, n_embd=8, n_head=2, bos_token_id=None,
        ...     eos_token_id=None)
        >>> model = GPT2LMHeadModel(config).eval()
        >>> time_model(model, "decoder", prompt_tokens=4, new_tokens=2, rounds=1).parameters
        9152
    """
    with optional_imports():
        import torch
    place = model.device
    ids = (torch.arange(prompt_tokens, device=place) * 7 % model.config.vocab_size)[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def run(tokens: int) -> float:
        start = time.perf_counter()
        if kind == "encoder":
            model(**inputs)
        else:
            model.generate(
                **inputs, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False,
                num_beams=1, use_cache=cached, pad_token_id=model.config.pad_token_id or 0,
            )  # fmt: skip
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        return time.perf_counter() - start

    first, others = [], []
    with torch.inference_mode():
        for number in range(rounds + 1):
            times = [run(1)] if kind == "encoder" else [run(1), run(new_tokens)]
            if number:
                first.append(times[0])
                others.append((times[-1] - times[0]) / (new_tokens - 1))
            if progress is not None:
                progress(1)
    return Latency(
        parameters=sum(weight.numel() for weight in model.parameters()),
        prefill_seconds=statistics.median(first),
        # Where a token takes next to nothing, the clock may say less.
        token_seconds=None if kind == "encoder" else max(0.0, statistics.median(others)),
        cached=cached,
    )


def _check_room(
    folder: str | os.PathLike[str], config: Any, kind: str, prompt_tokens: int, new_tokens: int
) -> None:
    most = getattr(config, "max_position_embeddings", None)
    needed = prompt_tokens + (new_tokens if kind == "decoder" else 0)
    if isinstance(most, int) and needed > most:
        raise ValueError(f"{os.fspath(folder)}: reads at most {most} tokens: got {needed}")


def _can_cache(folder: str | os.PathLike[str]) -> bool:
    """Whether transformers can generate from a cache with a model."""
    from lmcore.compression.planning import start_plan
    from lmcore.compression.pruning import describe_limits

    return not describe_limits(start_plan(folder))


def _name_processor() -> str:
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # other systems have other ways
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine() or "cpu"


def _divide(part: float | None, whole: float | None) -> str:
    return f"{part / whole:.3f}" if part is not None and whole else "-"


def _take_fields(name: str, content: Any, kind: Any) -> dict[str, Any]:
    names = [field.name for field in fields(kind)]
    if not isinstance(content, dict) or {*content} != {*names}:
        raise TypeError(f"{name} must have {', '.join(names)}")
    return {**content}


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text: got {value!r:.60}")


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number: got {value!r:.60}")
    if not 1 <= value <= _MOST:
        raise ValueError(f"{name} must be from 1 to {_MOST}: got {value}")


def _check_seconds(name: str, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number: got {value!r:.60}")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be at least 0 and finite: got {value}")
