"""What `ops.denoising` writes into, what it reads, and what it refuses."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from denoised import as_lists, both, texts_of
from lmcore.ops import denoising
from lmcore.ops.denoising import DenoisedBatch, Denoiser, PackedSamples, SpecialIds
from lmcore.reference import denoising as reference
from parity import agree


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_arrays_are_used_again(dtype: type[np.signedinteger[Any]]) -> None:
    texts = texts_of(12, 64)
    wide = {"encoder_width": 80, "decoder_width": 70}
    batch = denoising.denoise_batch(texts, range(12), seed=1, dtype=dtype, **wide)
    assert batch.encoder.dtype == batch.labels.dtype == dtype
    dirty = DenoisedBatch(*(np.full_like(getattr(batch, f.name), 77) for f in fields(batch)))
    assert denoising.denoise_batch(texts, range(12), seed=1, out=dirty) is dirty
    assert as_lists(dirty) == as_lists(batch)
    packed = denoising.denoise_packed(texts, range(12), seed=1, dtype=dtype)
    room = PackedSamples(
        *(np.full(2_000, 77, dtype) for _ in range(3)), *(np.zeros(0, np.int64),) * 3
    )
    first = denoising.denoise_packed(texts, range(12), seed=1, out=room)
    assert as_lists(first) == as_lists(packed)
    assert np.shares_memory(first.encoder, room.encoder)
    second = denoising.denoise_packed(texts, range(12, 24), seed=1, out=first)
    assert np.shares_memory(second.labels, room.labels)
    again = denoising.denoise_packed(texts, range(12, 24), seed=1)
    assert as_lists(second) == as_lists(again)


def test_arrays_of_other_kinds_are_refused() -> None:
    texts = texts_of(3, 64)
    good = denoising.denoise_batch(texts, range(3), seed=1, encoder_width=80, decoder_width=70)
    arrays = {field.name: getattr(good, field.name) for field in fields(good)}

    def run(**changes: Any) -> Any:
        out = DenoisedBatch(**{**arrays, **changes})
        return denoising.denoise_batch(texts, range(3), seed=1, out=out)

    with pytest.raises(TypeError, match=r"out\.encoder must be int64 or int32: got float32"):
        run(encoder=arrays["encoder"].astype(np.float32))
    with pytest.raises(TypeError, match=r"out\.labels must be int64: got int32"):
        run(labels=arrays["labels"].astype(np.int32))
    for name in arrays:
        with pytest.raises(ValueError, match=rf"out\.{name} must be a writeable array of shape"):
            run(**{name: arrays[name][1:]})
    frozen = arrays["decoder"].copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"out\.decoder must be a writeable array"):
        run(decoder=frozen)
    with pytest.raises(
        ValueError, match=r"out\.labels must be a writeable array of shape \[3, 70\]"
    ):
        run(labels=arrays["labels"][:, :-1].copy())
    with pytest.raises(ValueError, match="labels is in use"):
        run(labels=arrays["decoder"])
    with pytest.raises(ValueError, match=r"^encoder\[0\] must be at least \d+ ids wide: got 5$"):
        run(encoder=np.zeros((3, 5), np.int64))
    with pytest.raises(TypeError, match=r"^dtype must be int64 or int32: got int16$"):
        denoising.denoise_batch(texts, range(3), seed=1, dtype=np.int16)
    short = PackedSamples(*(np.zeros(9, np.int64) for _ in range(6)))
    with pytest.raises(ValueError, match=r"^out\.encoder must be at least \d+ long: got 9$"):
        denoising.denoise_packed(texts, range(3), seed=1, out=short)


def test_texts_are_read_where_they_lie(tmp_path: Path) -> None:
    texts = texts_of(50, 568)
    expected = as_lists(denoising.denoise_batch(texts[40:45], range(5), seed=1))
    mapped: dict[str, Any] = {}
    for kind in ("<u2", "<i4", "<u4", "<i8", ">i4"):
        path = tmp_path / f"{len(mapped)}.bin"
        np.asarray(texts, kind).tofile(path)
        mapped[kind] = np.memmap(path, kind, "r", shape=(50, 568))
    odd = np.zeros(50 * 568 * 8 + 1, np.uint8)[1:].view(np.int64).reshape(50, 568)
    odd[:] = texts
    kinds = [*mapped.values(), odd, texts[:, ::-1][:, ::-1], np.asfortranarray(texts)]
    for tokens in [*kinds, texts.tolist(), [row.astype(np.uint64) for row in texts]]:
        found = denoising.denoise_batch(tokens, range(5), seed=1, rows=range(40, 45))
        assert as_lists(found) == expected
    view = np.broadcast_to(np.int64(5), (1 << 40, 16))
    many = denoising.denoise_batch(view, [0, 1], seed=1, rows=[0, (1 << 40) - 1])
    assert many.encoder.shape[0] == 2


ONE = Denoiser(name="one", kind="spans", density=0.5)
BASE: dict[str, Any] = {"tokens": [[5, 6, 7, 8], [9, 10, 11, 12]], "indices": [0, 1], "seed": 0}


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (
            {"tokens": [[5], [6, 7]]},
            ValueError,
            "tokens[0] must be at least 2 and below 2**31 ids long: got 1",
        ),
        (
            {"tokens": [[5, 6], []]},
            ValueError,
            "tokens[1] must be at least 2 and below 2**31 ids long: got 0",
        ),
        (
            {"tokens": [[5, 6]]},
            ValueError,
            "tokens and indices must have the same length: got 1 and 2",
        ),
        (
            {"tokens": [[5, 6], [7, 250_203]]},
            IndexError,
            "tokens[1] must be at least 0 and below 250203: got 250203 (row 1)",
        ),
        (
            {"tokens": [[5, -6], [7, 8]]},
            IndexError,
            "tokens[1] must be at least 0 and below 250203: got -6 (row 0)",
        ),
        ({"tokens": [[5.0, 6], [7, 8]]}, TypeError, "tokens must be integers: got float64"),
        (
            {"tokens": np.zeros((2, 4, 1), int)},
            ValueError,
            "tokens must have the shape [L]: got [4, 1]",
        ),
        ({"indices": [0, -1]}, ValueError, None),
        ({"indices": [0]}, ValueError, "tokens and indices must have the same length: got 2 and 1"),
        ({"indices": [[0, 1]]}, ValueError, "indices must have the shape [B]: got [1, 2]"),
        ({"seed": -1}, ValueError, "seed must be at least 0 and below 2**64: got -1"),
        ({"seed": 2**64}, ValueError, None),
        ({"seed": 1.0}, TypeError, "seed must be an int: got float"),
        ({"rows": [0, 2]}, IndexError, "rows[1] must be at least 0 and below 2: got 2"),
        ({"rows": [0, -1]}, IndexError, None),
        ({"rows": [0]}, ValueError, "rows and indices must have the same length: got 1 and 2"),
        ({"tasks": [0, 7]}, IndexError, "tasks[1] must be at least 0 and below 7: got 7"),
        ({"tasks": [-1, 7]}, IndexError, "tasks[0] must be at least 0 and below 7: got -1"),
        ({"tasks": [0]}, ValueError, "indices and tasks must have the same length: got 2 and 1"),
        (
            {"encoder_width": 0},
            ValueError,
            "encoder_width must be at least 1 and below 2**31: got 0",
        ),
        ({"encoder_width": 3}, ValueError, None),
        ({"decoder_width": 2}, ValueError, None),
        ({"decoder_width": "3"}, TypeError, "decoder_width must be an int or None: got str"),
        ({"denoisers": []}, ValueError, "denoisers must not be empty"),
        ({"denoisers": [3]}, TypeError, "denoisers[0] must be a Denoiser: got int"),
        (
            {"denoisers": [ONE, replace(ONE, kind="other")]},
            ValueError,
            "denoisers[1].kind must be one of spans, suffix, fixed_suffix, mix: got 'other'",
        ),
        (
            {"denoisers": [replace(ONE, excess="")]},
            ValueError,
            "denoisers[0].excess must be one of cap, refuse, run_on: got ''",
        ),
        (
            {"denoisers": [replace(ONE, density=0)]},
            ValueError,
            "denoisers[0].density must be above 0 and below 1: got 0",
        ),
        ({"denoisers": [replace(ONE, density=1.0)]}, ValueError, None),
        ({"denoisers": [replace(ONE, density=float("nan"))]}, ValueError, None),
        (
            {"denoisers": [replace(ONE, mean_span=0.5)]},
            ValueError,
            "denoisers[0].mean_span must be finite and at least 1: got 0.5",
        ),
        ({"denoisers": [replace(ONE, mean_span=float("inf"))]}, ValueError, None),
        (
            {"denoisers": [replace(ONE, weight=-1.0)]},
            ValueError,
            "denoisers[0].weight must be finite and at least 0: got -1.0",
        ),
        (
            {"denoisers": [replace(ONE, weight=0.0)]},
            ValueError,
            "denoisers must have finite weights above 0 in sum: got 0.0",
        ),
        (
            {"denoisers": [replace(ONE, weight=1.7e308)] * 2},
            ValueError,
            "denoisers must have finite weights above 0 in sum: got inf",
        ),
        (
            {"denoisers": [replace(ONE, prefix=250_203)]},
            ValueError,
            "denoisers[0].prefix must be at least 0 and below 250203: got 250203",
        ),
        (
            {"denoisers": [replace(ONE, prefix="<X>")]},
            TypeError,
            "denoisers[0].prefix must be an int or None: got str",
        ),
        (
            {"denoisers": [replace(ONE, prefix=[])]},
            TypeError,
            "denoisers[0].prefix must be an int or None: got list",
        ),
        (
            {"denoisers": [replace(ONE, max_length=1)]},
            ValueError,
            "denoisers[0].max_length must be at least 2 and below 2**31: got 1",
        ),
        ({"ids": SpecialIds(vocabulary_size=0)}, ValueError, None),
        (
            {"ids": SpecialIds(vocabulary_size=9)},
            ValueError,
            "ids.first_sentinel must be at least 0 and below 9: got 250199",
        ),
        ({"ids": SpecialIds(sentinel_count=0)}, ValueError, None),
        (
            {"ids": SpecialIds(first_sentinel=50)},
            ValueError,
            "ids.sentinel_count must be at least 1 and at most 51: got 100",
        ),
        (
            {"ids": SpecialIds(eos=-1)},
            ValueError,
            "ids.eos must be at least 0 and below 250203: got -1",
        ),
        ({"ids": SpecialIds(label_padding=2**31)}, ValueError, None),
    ],
)
def test_wrong_arguments_are_named(
    change: dict[str, Any], kind: type[Exception], text: str | None
) -> None:
    error = both("denoise_batch", **{**BASE, **change})
    assert type(error) is kind
    assert text in (None, str(error))


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.plan_batch([4, 1], [0, 1], seed=0),
        lambda m: m.plan_batch([4, 2**31], [0, 1], seed=0),
        lambda m: m.plan_batch([4], [0, 1], seed=0),
        lambda m: m.plan_batch([4.5], [0], seed=0),
        lambda m: m.apply_spans([5, 6], [1], prefix=1),
        lambda m: m.apply_spans([5, 6], [1, 0]),
        lambda m: m.apply_spans([5, 6], [-1, 1]),
        lambda m: m.apply_spans([5, 6], [2**62, 2**62, 2**62, 2**62]),
        lambda m: m.apply_spans([5, 6], [1, 1], prefix=-1),
        lambda m: m.apply_spans([5, 2**33], [1, 1]),
        lambda m: m.apply_spans([[5, 6]], [1, 1]),
        lambda m: m.pair_batch([[5]], [], encoder_width=9, decoder_width=9),
        lambda m: m.pair_batch([[5]], [[6]], encoder_width=2, decoder_width=9),
        lambda m: m.pair_batch([[5]], [[6]], encoder_width=9, decoder_width=1),
        lambda m: m.pair_batch([[5]], [[-6]], encoder_width=9, decoder_width=9),
        lambda m: m.pair_batch([[5], [2**31]], [[6], [7]], encoder_width=9, decoder_width=9),
    ],
)
def test_wrong_calls_are_named(call: Callable[[Any], Any]) -> None:
    error = agree(lambda: call(reference), lambda: call(denoising))
    assert isinstance(error, (TypeError, ValueError, IndexError))
