"""`training.ema` against the recurrence, written out."""

import pytest
import torch
from torch import nn

from lmcore.training.ema import EMATeacher


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
        teacher.update(student)
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
    students = [nn.Linear(3, 3) for _ in range(6)]
    whole = EMATeacher(students[0])
    for student in students[1:]:
        whole.update(student)
    first = EMATeacher(students[0])
    for student in students[1:3]:
        first.update(student)
    second = EMATeacher(students[5])
    second.load_state_dict(first.state_dict())
    assert second.update_count == 2
    for student in students[3:]:
        second.update(student)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])


def test_state_of_another_model() -> None:
    with pytest.raises(RuntimeError, match="weight"):
        EMATeacher(nn.Linear(2, 2)).load_state_dict(EMATeacher(nn.Linear(3, 2)).state_dict())


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\]: got 1.5"):
        EMATeacher(nn.Linear(1, 1), decay=1.5)
    with pytest.raises(ValueError, match="mode must be one of train, eval: got 'test'"):
        EMATeacher(nn.Linear(1, 1), mode="test")
