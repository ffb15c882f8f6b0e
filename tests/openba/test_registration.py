"""The Auto classes know OpenBA, whichever is imported first, and nothing is imported for that."""

import subprocess
import sys

import pytest

ASK = (
    "from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM\n"
    "config = AutoConfig.for_model('openba', vocab_size=9, hidden_size=8, encoder_layers=1,"
    " decoder_layers=1)\n"
    "print(type(config).__name__, type(AutoModel.from_config(config)).__name__,"
    " type(AutoModelForSeq2SeqLM.from_config(config)).__name__)\n"
)
KNOWN = "OpenBAConfig OpenBAModel OpenBAForConditionalGeneration"


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.parametrize(
    "before",
    [
        "import lmcore.openba",
        "import transformers.models.auto.modeling_auto; import lmcore.openba",
        "from lmcore.openba import OpenBAForConditionalGeneration",
        "from transformers import AutoConfig; from lmcore.openba import OpenBAConfig",
        # transformers.modeling_layers, which ours need as well, imports the Auto classes first.
        "import lmcore.openba; from lmcore.diffusion import TextDiffusionModel",
    ],
)
def test_any_order_of_imports(before: str) -> None:
    assert run_python(f"{before}\n{ASK}") == KNOWN


def test_the_import_needs_neither_torch_nor_transformers() -> None:
    code = "import sys, lmcore.openba; print({'torch', 'transformers'} & {*sys.modules})"
    assert run_python(code) == "set()"


def test_modules_of_transformers_stay_what_they_are() -> None:
    """Their source can still be read, and reloading registers again."""
    code = (
        "import lmcore.openba, importlib, inspect\n"
        "from transformers.models.auto import configuration_auto as module\n"
        "assert 'class AutoConfig' in inspect.getsource(module)\n"
        "importlib.reload(module)\n"
        "print(type(module.AutoConfig.for_model('openba')).__name__)"
    )
    assert run_python(code) == "OpenBAConfig"
