"""What numbers depend on besides their claim: the library, the machine, and what it has."""

import functools
import hashlib
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import lmcore
from lmcore._extras import optional_imports
from lmcore._text import count_noun
from lmcore.reproduce.claim import Size

_PACKAGES = ("numpy", "torch", "triton", "transformers")


@dataclass(kw_only=True, slots=True, frozen=True)
class RunInfo:
    """Under which conditions a report's numbers were measured."""

    command: str
    """The command that measures the same."""
    seeds: tuple[int, ...]
    size: Size
    versions: Mapping[str, str]
    """Version of each package that took part."""
    device: str
    started: str
    """Date and time in UTC."""


def find_missing(needs: Sequence[str]) -> str | None:
    """Returns why a claim with these needs cannot be measured here; None if it can.

    Args:
        needs: as `Claim.needs` names them.

    Raises:
        ImportError: torch, which looks for a GPU, is not installed.

    Example:
        >>> find_missing(["data:no_such_data"])
        'needs data that are not here: LMCORE_DATA names no folder that has no_such_data'
    """
    for need in needs:
        if need == "cuda":
            with optional_imports():
                import torch
            if not torch.cuda.is_available():
                return "needs a GPU: torch finds none"
            continue
        kind, _, name = need.partition(":")
        if kind == "package":
            if not _is_installed(name):
                return f"needs a package that is not here: pip install {name}"
            continue
        folder = os.environ.get("LMCORE_DATA")
        if not folder or not Path(folder, name).exists():
            return f"needs data that are not here: LMCORE_DATA names no folder that has {name}"
    return None


def describe_versions(packages: Iterable[str] | None = None) -> dict[str, str]:
    """Returns the versions of lmcore, Python and packages.

    Args:
        packages: those that are installed of these; if None, those that are imported by now:
            others had no part in the numbers.

    Example:
        >>> list(describe_versions([]))
        ['lmcore', 'Python']
    """
    versions = {"lmcore": lmcore.__version__, "Python": platform.python_version()}
    for package in _PACKAGES if packages is None else packages:
        if packages is None and package not in sys.modules:
            continue
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def describe_device() -> str:
    """Returns the processor, and the GPU if torch was imported and finds one.

    Example:
        >>> "thread" in describe_device()
        True
    """
    return "; ".join(filter(None, (_describe_processor(), _describe_gpu())))


def count_cores() -> int:
    """Returns the number of cores that this process may use.

    Example:
        >>> count_cores() >= 1
        True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find_conditions(needs: Sequence[str]) -> dict[str, str]:
    """Returns all that a measurement is only valid for, besides its claim, size and seed.

    A version does not change while the library is worked on, so its files count too.

    Args:
        needs: of the claim; of data the names, sizes and times of change count.

    Raises:
        OSError: the data cannot be read.
    """
    conditions = describe_versions(_PACKAGES)
    conditions["sources"] = digest_sources()
    conditions["device"] = _describe_processor()
    if "cuda" in needs:
        conditions["gpu"] = _describe_gpu()
    for need in needs:
        if need.startswith("data:"):
            conditions[need] = _digest_data(Path(os.environ["LMCORE_DATA"], need[5:]))
        elif need.startswith("package:"):
            conditions[need] = metadata.version(need[8:])
    return conditions


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


@functools.cache
def digest_sources() -> str:
    """Returns a digest of all files of the library, the compiled one among them.

    Example:
        >>> len(digest_sources())
        32
    """
    digest = hashlib.sha256()
    root = Path(lmcore.__file__).parent
    for path in _list_files(root):
        if path.suffix in (".py", ".so"):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()[:32]


def _digest_data(path: Path) -> str:
    digest = hashlib.sha256()
    for file in _list_files(path) if path.is_dir() else [path]:
        status = file.stat()
        name = os.fsencode(file.relative_to(path))
        digest.update(name + f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]


def _list_files(folder: Path) -> list[Path]:
    # `kernels` is a link to a folder in a checkout, which `os.walk` follows only if it is told.
    walk = os.walk(folder, followlinks=True)
    return sorted(Path(place, name) for place, _, names in walk for name in names)


def _describe_processor() -> str:
    cores = count_cores()
    threads = count_noun(cores, "thread")
    return f"{_processor_name()}, {threads}, {platform.system()}"


def _describe_gpu() -> str:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ""
    return str(torch.cuda.get_device_name())


def _processor_name() -> str:
    """Returns the processor's trade name; the standard library knows only its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
