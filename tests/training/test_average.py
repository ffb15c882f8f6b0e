"""The average of weights in float32, and in the place of a model's own."""

import pytest
import torch
from torch import nn

from lmcore.training.average import WeightAverage


@pytest.mark.parametrize("ramp", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recurrence_in_float32(ramp: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2, dtype=dtype)
    average = WeightAverage(layer.parameters(), 0.999, ramp=ramp)
    expected = [p.detach().double() for p in layer.parameters()]
    for n in range(1, 200):
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.normal_(1.0)
        average.update()
        d = min(0.999, (1 + n) / (10 + n)) if ramp else 0.999
        pairs = zip(expected, layer.parameters(), strict=True)
        expected = [d * old + (1 - d) * p.detach().double() for old, p in pairs]
    assert [value.dtype for value in average.values] == [torch.float32] * 2
    for value, wanted in zip(average.values, expected, strict=True):
        torch.testing.assert_close(value.double(), wanted, atol=1e-5, rtol=0)


def test_it_stands_in_for_the_weights_meanwhile() -> None:
    layer = nn.Linear(2, 2)
    average = WeightAverage(layer.parameters(), 0.9)
    with torch.no_grad():
        layer.weight.add_(1)
    own = layer.weight.detach().clone()
    with average.swapped_into(layer):
        torch.testing.assert_close(layer.weight.detach(), average.values[0])
    assert torch.equal(layer.weight, own)
    message = "the model must hold the parameters that are averaged"
    with pytest.raises(ValueError, match=message), average.swapped_into(nn.Linear(2, 2)):
        pass


def test_wrong_states() -> None:
    average = WeightAverage(nn.Linear(2, 2).parameters(), 0.9)
    state = average.state_dict()
    average.load_state_dict(state)
    for change, message in [
        ({"values": []}, "an average must hold 2 tensors"),
        ({"update_count": -1}, "update_count must be a number of updates: got -1"),
        ({"values": [torch.zeros(2, 2), torch.zeros(2).double()]}, r"average 1 must be \[2\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            average.load_state_dict({**state, **change})
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\]: got 1.5"):
        WeightAverage([], 1.5)
