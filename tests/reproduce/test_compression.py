"""The experiments on OpenBA-V2: what is cut, and what it is said to cost."""

import numpy as np
import pytest

from lmcore.reproduce.compression.importance import measure_methods
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
