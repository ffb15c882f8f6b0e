"""The experiments on OpenBA-V2: what is cut, and what it is said to cost."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmcore.reproduce.claim import Estimate
from lmcore.reproduce.compression import (
    denoiser_weights,
    importance_recovered,
    mixed_denoising,
    recovered_models,
    staged_layers,
)
from lmcore.reproduce.compression.importance import measure_methods
from lmcore.reproduce.compression.recovering import (
    DENOISERS,
    SIZES,
    Recovered,
    Whole,
    cut_half,
    train_whole,
)
from lmcore.reproduce.compression.spread_layers import measure_layouts
from lmcore.reproduce.compression.vocabulary_size import measure_vocabularies


def test_layers_are_cut_in_three_ways() -> None:
    values = measure_layouts(0, "tiny").values
    assert values["gain"] == values["adjacent"] - values["spread"]
    assert len({values[name] for name in ("none", "spread", "adjacent", "last")}) == 4
    assert values == measure_layouts(0, "tiny").values


def test_each_width_is_chosen_in_each_way() -> None:
    values = measure_methods(0, "tiny").values
    for dimension in ("heads", "ffn", "hidden"):
        losses = {values[f"{dimension}/{m}"] for m in ("random", "magnitude", "activation")}
        assert len(losses) > 1
        gain = values[f"{dimension}/random"] - values[f"{dimension}/taylor"]
        assert values[f"{dimension}/gain"] == gain
    assert np.isfinite([*values.values()]).all()


@pytest.mark.usefixtures("data_dir")
def test_fewer_tokens_take_more_of_them() -> None:
    values = measure_vocabularies(0, "tiny").values
    kept = [values[f"kept/{share}"] for share in ("1", "0.5", "0")]
    assert kept == sorted(kept, reverse=True)
    for language in ("en", "zh"):
        tokens = [values[f"tokens/{language}/{share}"] for share in ("1", "0.5", "0")]
        assert tokens == sorted(tokens)
        rise = values[f"{language}/0"] / values[f"{language}/1"] - 1
        assert values[f"{language}/rise"] == pytest.approx(100 * rise)
    # What is left of English are letters, and of Chinese characters.
    assert values["tokens/en/0"] > 1.5 * values["tokens/en/1"]
    assert values["gap"] == values["en/rise"] - values["zh/rise"]
    assert np.isfinite([*values.values()]).all()


# Recovery.


def test_a_model_that_was_cut_is_recovered_into_another() -> None:
    """Neither changes what it came from, and a seed gives the same numbers."""
    with train_whole(0, SIZES["tiny"]) as whole:
        small = cut_half(whole, 0)
        before = whole.measure(small)
        recovered = [whole.recover(small, parts=3) for _ in range(2)]
        assert recovered[0].losses == recovered[1].losses != before
        assert whole.measure(small) == before
        assert whole.measure(whole.folder) == whole.losses
        assert len(recovered[0].list_losses()) == 3
        assert whole.recover(small, stage=1).losses != recovered[0].losses
        # What is drawn anew has nothing of the model that was cut.
        assert whole.measure(whole.start_anew(small)) != before


def test_texts_that_weights_follow_are_not_trained_on() -> None:
    with train_whole(0, SIZES["tiny"]) as whole:
        valid = whole._made.valid
        assert len(valid) == SIZES["tiny"].valid
        for group in valid:
            assert not (whole.corpus.train == group).all(axis=1).any()
            assert not (whole.corpus.test == group).all(axis=1).any()


@pytest.mark.parametrize("size", ["tiny", "quick"])
def test_stages_end_with_the_layers_that_are_cut_at_once(
    size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without recovery both ways are one; a demo's model has words for tokens."""
    sizes = dataclasses.replace(
        SIZES["tiny"], words=size == "quick", valid=0 if size == "quick" else 4
    )
    monkeypatch.setitem(staged_layers._SIZES, "tiny", sizes)
    values = staged_layers.measure_stages(0, "tiny").values
    assert values["jump"] == values["cut/direct"] - max(values[f"cut/{n}"] for n in "123")
    assert values["gain"] == values["recovered/direct"] - values["recovered/3"]
    assert len(set(values.values())) == len(values)

    def recover(self: Any, model: Path, **_: Any) -> Recovered:
        return Recovered(model=model, losses=self.measure(model), history=[])

    monkeypatch.setattr(Whole, "recover", recover)
    values = staged_layers.measure_stages(0, "tiny").values
    assert values["gain"] == 0


@pytest.mark.parametrize(
    ("jump", "gain", "verdict"), [(0.5, 0.0, True), (0.05, 0.1, False), (0.5, -0.2, False)]
)
def test_stages_are_judged_after_cuts_and_at_the_end(
    jump: float, gain: float, verdict: bool
) -> None:
    found = {"jump": Estimate(mean=jump, spread=0.1), "gain": Estimate(mean=gain, spread=0.1)}
    assert staged_layers.stages_lose_less(found) == verdict


def test_shares_follow_the_losses() -> None:
    values = denoiser_weights.measure_weights(0, "tiny").values
    sizes = SIZES["tiny"]
    for rule in ("paper", "shipped"):
        shares = np.array(
            [
                [values[f"share/{rule}/{count}/{name}"] for name in DENOISERS]
                for count in range(sizes.steps // sizes.update_every_steps)
            ]
        )
        assert shares[0].tolist() == [0.02, 0.02, 0.8, 0.1, 0.02, 0.02, 0.02]
        assert shares.sum(axis=1) == pytest.approx(1)
    # It smooths, and counts what is below its target, too.
    assert shares[-1].tolist() != shares[0].tolist()
    for arm in ("uniform", "initial", "paper", "shipped"):
        gaps = [values[f"{arm}/{name}"] for name in DENOISERS]
        assert values[f"{arm}/largest"] == max(gaps)
        assert values[f"{arm}/mean"] == pytest.approx(np.mean(gaps))
    assert values["gain"] == values["uniform/largest"] - values["paper/largest"]
    assert values["uniform/S"] != values["initial/S"]


def test_a_row_is_used_as_far_as_its_length_says() -> None:
    values = mixed_denoising.measure_use(0, "tiny").values
    assert values["use/S"] == pytest.approx(100 * (1027 + 1026) / 2080)
    assert values["use/mix"] == pytest.approx(91.5, abs=0.5)
    assert values["use/mix"] <= values["use/o_ul2"] <= values["use/S"]
    assert values["use/ul2"] == pytest.approx(65.3, abs=3)
    assert values["ratio"] == values["rate/o_ul2"] / values["rate/ul2"]


@pytest.mark.parametrize(
    ("mix", "ratio", "verdict"), [(91.4, 1.5, True), (91.0, 1.5, False), (91.4, 1.05, False)]
)
def test_both_use_and_speed_are_judged(mix: float, ratio: float, verdict: bool) -> None:
    shares = {"ul2": 65.2, "S": 98.7, "mix": mix}
    found = {f"use/{name}": Estimate(mean=share, spread=0.1) for name, share in shares.items()}
    found["ratio"] = Estimate(mean=ratio, spread=0.1)
    assert mixed_denoising.rows_are_filled(found) == verdict


def test_arms_are_held_against_each_other() -> None:
    new = recovered_models.measure_scratch(0, "tiny").values
    taught = recovered_models.measure_distilled(0, "tiny").values
    assert new["plain/loss"] == taught["plain/loss"] != taught["distilled/loss"]
    assert new["gain"] == new["scratch/loss"] - new["plain/loss"]
    assert taught["gain"] == taught["plain/loss"] - taught["distilled/loss"]
    assert [name for name in new if name.startswith("scratch/after/")] == [
        f"scratch/after/{number}" for number in range(1, 7)
    ]


def test_the_range_over_methods_is_compared() -> None:
    values = importance_recovered.measure_methods(0, "tiny").values
    for point in ("cut", "recovered"):
        losses = [values[f"{point}/{m}"] for m in importance_recovered._METHODS]
        assert len(set(losses)) > 2
        assert values[f"range/{point}"] == max(losses) - min(losses)
    assert values["left"] == values["range/recovered"] / values["range/cut"]
