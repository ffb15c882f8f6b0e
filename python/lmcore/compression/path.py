"""The path from a model to a smaller one: stages that each cut something, and train what is left.

Each stage starts from the model that the one before left. Its cut is of one kind:

| cut | says |
| --- | --- |
| `Stage` | what is kept, by indices of the original, as in a plan |
| `SizesCut` | how much is kept, and how that is chosen in the model that the stage starts from |
| `TargetCut` | what the model shall have at most: the sizes are searched |
| `VocabularyCut` | how many tokens are kept, the most frequent ones |
| None | nothing: the stage trains on |

Source: OpenBA-V2 (arXiv 2405.05957), section 3 and the table of its repository.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from lmcore.compression.choosing import Sizes
from lmcore.compression.importance import TOKENS
from lmcore.compression.indices import Indices, take_indices
from lmcore.compression.plan import Stage
from lmcore.compression.targets import parse_target
from lmcore.training.config import Between, change, check_fields

if TYPE_CHECKING:
    from lmcore.compression.recovery_config import RecoveryConfig

MOST_STAGES = 100
"""Of a path."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,59}", re.ASCII)
_MOST = 2**31 - 1
_Method = Literal["random", "magnitude", "activation", "taylor", "block_influence"]
Teacher = Literal["original", "previous", "none"]
"""Whom a stage learns from, next to its texts: the model that the path begins with, the one that
the stage cuts, or nobody."""


@dataclass(kw_only=True, slots=True, frozen=True)
class SizesCut:
    """How much a stage leaves of each dimension, and how it is chosen; None leaves one as it is.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, a text is none of the choices, or no size is
            given.

    Example:
        >>> SizesCut(decoder_layers=24).choose
        'random'
    """

    encoder_layers: Annotated[int | None, Between(1, _MOST)] = None
    decoder_layers: Annotated[int | None, Between(1, _MOST)] = None
    hidden: Annotated[int | None, Between(1, _MOST)] = None
    heads: Annotated[int | None, Between(1, _MOST)] = None
    ffn: Annotated[int | None, Between(1, _MOST)] = None
    vocabulary: Indices | None = None
    """The kept ids themselves, in the numbering of the original."""
    choose: _Method = "random"
    """As `lmcore.compression.choosing` has it; what scores asks the model that the stage cuts."""
    layers: Literal["spread", "adjacent"] = "spread"
    """How layers that are cut lie between the first and the last, which stay."""
    seed: Annotated[int, Between(0, 2**64 - 1)] = 0
    """Of what is drawn."""
    text: str | None = None
    """What the model reads to be scored; None: the first of the texts that it is trained on."""
    tokens: Annotated[int, Between(1, _MOST)] = TOKENS
    """Of the text that are read at most."""

    def __post_init__(self) -> None:
        if self.vocabulary is not None:
            object.__setattr__(self, "vocabulary", take_indices("vocabulary", self.vocabulary))
        check_fields(self)
        if all(getattr(self, name) is None for name in SIZES):
            raise ValueError(f"expected a size to leave, one of {', '.join(SIZES)}")
        widths = [name for name in ("hidden", "heads", "ffn") if getattr(self, name) is not None]
        if self.choose == "block_influence" and widths:
            raise ValueError(
                f"block_influence scores layers alone: choose {widths[0]} in a stage of its own"
            )
        if self.choose not in ("random", "block_influence") and not widths:
            raise ValueError(f"{self.choose} scores widths: expected one of hidden, heads and ffn")


SIZES = ("encoder_layers", "decoder_layers", "hidden", "heads", "ffn", "vocabulary")
"""What a `SizesCut` may name."""


@dataclass(kw_only=True, slots=True, frozen=True)
class TargetCut:
    """What a stage's model shall have at most: the best sizes under it are searched.

    Where more than half of the parameters go, the stage becomes several, each with the training of
    this one. Time is measured, and differs from one start to the next: for a target of time plan
    the sizes first.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, a text is none of the choices, or the goal is
            none that is told from sizes.

    Example:
        >>> TargetCut(goal="params=3.4e9").choose
        'random'
    """

    goal: str
    """`params=…` or `memory_mb=…`, as `lmcore compression plan --target` takes them."""
    choose: Literal["random", "magnitude", "activation", "taylor"] = "random"
    """As for `SizesCut`, and so are the others."""
    layers: Literal["spread", "adjacent"] = "spread"
    seed: Annotated[int, Between(0, 2**64 - 1)] = 0
    text: str | None = None
    tokens: Annotated[int, Between(1, _MOST)] = TOKENS

    def __post_init__(self) -> None:
        check_fields(self)
        if parse_target(self.goal).kind == "ms_per_token":
            raise ValueError(
                "goal must be params or memory_mb: plan the sizes for a time, and name these"
            )

    def make_cut(self, sizes: Sizes) -> SizesCut:
        """Returns the cut that leaves sizes which were found.

        Args:
            sizes: of all dimensions.
        """
        found = {name: getattr(sizes, name) for name in SIZES}
        told = {
            name: getattr(self, name) for name in ("choose", "layers", "seed", "text", "tokens")
        }
        return SizesCut(**found, **told)


@dataclass(kw_only=True, slots=True, frozen=True)
class VocabularyCut:
    """How many tokens a stage leaves: those that must stay, and then the most frequent.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, or a group is named and no counts that have it.

    Example:
        >>> VocabularyCut(keep=100_000).multiple
        128
    """

    keep: Annotated[int, Between(1, _MOST)]
    """Tokens that stay, special ones, bytes and characters included."""
    keep_per: Mapping[str, int] = field(default_factory=dict)
    """Of groups of the counts: so many of their most frequent tokens stay in any case."""
    multiple: Annotated[int, Between(1, 1 << 20)] = 128
    """The number of rows of the embedding is one of it."""
    counts: str | None = None
    """How often each token occurs, as `lmcore compression count` writes it; None: it is counted in
    what the model is trained on, all in one group."""

    def __post_init__(self) -> None:
        check_fields(self)
        for group, number in self.keep_per.items():
            if number < 0:
                raise ValueError(f"keep_per must not be negative: got {number} of {group!r:.60}")
        if self.keep_per and self.counts is None:
            raise ValueError(
                f"keep_per names the group {next(iter(self.keep_per))!r:.60}, which takes counts "
                "that have it: name the file that `lmcore compression count --group` writes"
            )


Cut = Stage | SizesCut | TargetCut | VocabularyCut
"""What a stage cuts."""


@dataclass(kw_only=True, slots=True, frozen=True)
class PathStage:
    """A cut, and the training that makes up for it; either may be left out, not both.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: the name cannot be that of a folder, a text is none of the choices, or there
            is neither a cut nor training.

    Example:
        >>> PathStage(name="layers", cut=SizesCut(decoder_layers=24)).teacher
        'original'
    """

    name: str
    """Letters, digits, dots, dashes and underscores; its folder is called by it."""
    cut: Cut | None = None
    recover: RecoveryConfig | None = None
    """How it is trained; its `model` and `teacher` are not looked at."""
    teacher: Teacher = "original"
    """Whom it learns from."""
    data: tuple[str, ...] = ()
    """What it is trained on, as `recover` takes it; none: as for the path."""
    valid: tuple[str, ...] = ()
    """Texts of validation; none: as for the path."""
    published_parameters: int | None = None
    """What a paper says the stage leaves, rounded as it stands there."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(
                "the name of a stage must be up to 60 letters, digits, dots, dashes and "
                f"underscores: got {self.name!r:.80}"
            )
        if self.cut is not None and not isinstance(self.cut, Cut):
            raise TypeError(f"the stage {self.name}: cut must be a cut: got {self.cut!r:.60}")
        if isinstance(self.cut, Stage):  # the stage of the path says both
            published = self.published_parameters
            if published is None:
                published = self.cut.published_parameters
            object.__setattr__(self, "published_parameters", published)
            plain = replace(self.cut, name="", published_parameters=None)
            object.__setattr__(self, "cut", plain)
        if self.teacher not in get_args(Teacher):
            raise ValueError(
                f"the stage {self.name}: teacher must be {' or '.join(get_args(Teacher))}: got "
                f"{self.teacher!r:.60}"
            )
        published = self.published_parameters
        if published is not None and (type(published) is not int or published < 0):
            raise TypeError(
                f"the stage {self.name}: published_parameters must be a whole number: got "
                f"{published!r:.60}"
            )
        if self.cut is None and self.recover is None:
            raise ValueError(f"the stage {self.name} neither cuts nor trains")
        for name in ("data", "valid"):
            object.__setattr__(self, name, _take_names(name, getattr(self, name)))


@dataclass(kw_only=True, slots=True, frozen=True)
class PathConfig:
    """Stages one after the other, from a model to a smaller one.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: there are no stages or more than `MOST_STAGES`, or two have one name.

    Example:
        >>> path = PathConfig(model="large", stages=[PathStage(name="a", cut=SizesCut(ffn=7))])
        >>> path.folders
        ('1-a',)
    """

    model: str | None = None
    """The folder of the original; None: as `run_path` is told."""
    stages: tuple[PathStage, ...]
    data: tuple[str, ...] = ()
    """What stages are trained on that say nothing else: the prefix of a token file, or files of
    texts."""
    valid: tuple[str, ...] = ()
    """Texts of validation, of the same kinds."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        for stage in self.stages:
            if not isinstance(stage, PathStage):
                raise TypeError(f"stages must be PathStages: got {stage!r:.60}")
        if not 1 <= len(self.stages) <= MOST_STAGES:
            raise ValueError(
                f"a path has from 1 to {MOST_STAGES} stages: got "
                f"{'none' if not self.stages else len(self.stages)}"
            )
        names = [stage.name for stage in self.stages]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"two stages are called {twice[0]}")
        if self.model is not None and not isinstance(self.model, str):
            raise TypeError(f"model must be a folder: got {self.model!r:.60}")
        for name in ("data", "valid"):
            object.__setattr__(self, name, _take_names(name, getattr(self, name)))

    @property
    def folders(self) -> tuple[str, ...]:
        """The name of each stage's folder."""
        return tuple(f"{number}-{stage.name}" for number, stage in enumerate(self.stages, 1))


def find_original(path: PathConfig, model: str | os.PathLike[str] | None = None) -> str:
    """Returns the name of the folder that a path begins with.

    Args:
        path: any.
        model: takes the place of its own.

    Raises:
        ValueError: neither names one.

    Example:
        >>> find_original(PathConfig(model="large", stages=[PathStage(name="a", cut=Stage())]))
        'large'
    """
    named = path.model if model is None else os.fspath(model)
    if named is None:
        raise ValueError("expected a model to begin with: the path names none")
    return named


def place_training(
    path: PathConfig, *, device: str | None = None, threads: int | None = None
) -> PathConfig:
    """Returns a path whose stages train on a device, and with so many threads.

    Args:
        path: any.
        device: as in `DeviceConfig`; None: as each stage says.
        threads: as there.

    Example:
        >>> place_training(PathConfig(stages=[PathStage(name="a", cut=SizesCut(ffn=7))])).folders
        ('1-a',)
    """
    given = {"device.device": device, "device.threads": threads}
    changes = {name: value for name, value in given.items() if value is not None}
    stages = [
        stage if stage.recover is None else replace(stage, recover=change(stage.recover, changes))
        for stage in path.stages
    ]
    return replace(path, stages=tuple(stages))


def is_stage_folder(name: str) -> bool:
    """Returns whether a folder may be that of a stage, by its name.

    Args:
        name: of a folder.

    Example:
        >>> is_stage_folder("3-9.9B"), is_stage_folder("../3-9.9B")
        (True, False)
    """
    number, _, own = name.partition("-")
    return bool(re.fullmatch("[1-9][0-9]?[0-9]?", number, re.ASCII) and _NAME.fullmatch(own))


def _take_names(what: str, given: Any) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given)
    if any(not isinstance(name, str) or not name for name in names):
        raise TypeError(f"{what} must be names of files: got {given!r:.60}")
    return names
