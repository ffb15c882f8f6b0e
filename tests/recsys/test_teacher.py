"""The teacher against the recurrence, written out."""

import copy

import pytest
import torch
from torch import nn

from lmcore.recsys.teacher import EMATeacher


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999, 1.0])
def test_recurrence(decay: float) -> None:
    torch.manual_seed(0)
    student = nn.Linear(3, 2)
    teacher = EMATeacher(student, decay=decay)
    expected = {name: weight.detach().clone() for name, weight in student.named_parameters()}
    for n in range(1, 40):
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.normal_()
        teacher.update()
        d = min(decay, (1 + n) / (10 + n))
        for name, weight in student.named_parameters():
            expected[name] = d * expected[name] + (1 - d) * weight.detach()
            torch.testing.assert_close(teacher.model.get_parameter(name), expected[name])
        assert teacher.update_count == n


def test_it_starts_as_a_copy_of_its_own() -> None:
    student = nn.Linear(2, 2)
    teacher = EMATeacher(student)
    weight = student.weight.detach().clone()
    nn.init.zeros_(student.weight)
    assert torch.equal(teacher.model.get_parameter("weight"), weight)
    assert teacher.update_count == 0


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_modes(mode: str) -> None:
    student = nn.Sequential(nn.Linear(50, 50), nn.Dropout(0.5))
    teacher = EMATeacher(student, mode=mode)
    output = teacher(torch.ones(1, 50))
    assert not output.requires_grad
    assert bool((output == 0).any()) == (mode == "train")
    teacher.model.eval()
    with teacher.teaching() as model:
        assert model.training == (mode == "train")
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    assert student.training


def test_gradients_are_off_for_the_teacher_alone() -> None:
    student = nn.Linear(2, 2)
    teacher = EMATeacher(student)
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_state_continues() -> None:
    torch.manual_seed(0)
    student = nn.Linear(3, 3)
    whole = EMATeacher(student)
    saved = None
    for number in range(6):
        with torch.no_grad():
            student.weight.normal_()
        whole.update()
        if number == 2:
            saved = copy.deepcopy(whole.state_dict())
            weights = whole.model.state_dict()
            parts = EMATeacher(nn.Linear(3, 3))
            parts.load_state_dict(saved)
            assert parts.update_count == 3
            assert all(torch.equal(weights[n], w) for n, w in parts.model.state_dict().items())


def test_it_follows_in_float32() -> None:
    """In bfloat16 a thousandth of the way is below the last digit, and the average stands still."""
    student = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    nn.init.constant_(student.weight, 1.0)
    teacher = EMATeacher(student, decay=0.999)
    nn.init.constant_(student.weight, 2.0)
    expected = 1.0
    for n in range(1, 3000):
        teacher.update()
        expected += (1 - min(0.999, (1 + n) / (10 + n))) * (2.0 - expected)
    assert teacher.model.weight.dtype == torch.bfloat16
    assert teacher.model.weight.item() == pytest.approx(expected, abs=0.01)
    assert teacher.state_dict()["values"][0].dtype == torch.float32


def test_state_of_another_model() -> None:
    with pytest.raises(ValueError, match=r"average 0 must be \[2, 2\] torch.float32: got \[2, 3\]"):
        EMATeacher(nn.Linear(2, 2)).load_state_dict(EMATeacher(nn.Linear(3, 2)).state_dict())


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\]: got 1.5"):
        EMATeacher(nn.Linear(1, 1), decay=1.5)
    with pytest.raises(ValueError, match="mode must be one of train, eval: got 'test'"):
        EMATeacher(nn.Linear(1, 1), mode="test")
