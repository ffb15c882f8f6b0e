"""The package needs no torch until something of it does, and the Auto classes know its model."""

import subprocess
import sys

import pytest
from transformers import AutoConfig, AutoModel

import lmcore.diffusion
from lmcore.diffusion import TextDiffusionConfig, TextDiffusionModel
from tiny_diffusion import SIZES


def test_the_import_needs_neither_torch_nor_transformers() -> None:
    code = "import sys, lmcore.diffusion; print({'torch', 'transformers'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    )
    assert done.stdout == "set()\n"


def test_auto_classes_know_the_model() -> None:
    config = AutoConfig.for_model("text_diffusion", **SIZES)
    assert type(config) is TextDiffusionConfig
    assert type(AutoModel.from_config(config)) is TextDiffusionModel


def test_names_that_there_are_not() -> None:
    with pytest.raises(AttributeError, match=r"'lmcore\.diffusion' has no attribute 'sampel'"):
        lmcore.diffusion.sampel  # noqa: B018
    assert set(lmcore.diffusion.__all__) <= set(dir(lmcore.diffusion))
