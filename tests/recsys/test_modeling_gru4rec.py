"""GRU4Rec: padding does not pass through the recurrence."""

import torch

from lmcore.recsys import GRU4RecConfig, GRU4RecModel


def make_model(length: int) -> GRU4RecModel:
    torch.manual_seed(0)
    return GRU4RecModel(GRU4RecConfig(item_count=9, max_length=length, hidden_size=4)).eval()


def test_features_do_not_depend_on_padding() -> None:
    with torch.no_grad():
        long = make_model(6)(torch.tensor([[0, 0, 0, 3, 9, 1]]))
        short = make_model(3)(torch.tensor([[3, 9, 1]]))
    torch.testing.assert_close(long[:, 3:], short)
    assert long[:, :3].abs().max() == 0


def test_it_is_torchs_gru() -> None:
    model = make_model(3)
    items = torch.tensor([[3, 9, 1]])
    with torch.no_grad():
        states, _ = model.gru(model.item_emb(items))
        torch.testing.assert_close(model(items), model.output(states))


def test_gru_has_no_biases() -> None:
    assert [n for n in make_model(3).state_dict() if n.startswith("gru") and "bias" in n] == []
