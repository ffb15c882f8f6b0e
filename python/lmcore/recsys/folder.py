"""What the folder of a run holds: its model, ids, where its data lie, and what it mined."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._json import read_json
from lmcore._manifest import check_manifest, find_model
from lmcore.recsys.backbone import SequenceModel
from lmcore.recsys.data import Interactions
from lmcore.recsys.filters import keep_items
from lmcore.recsys.ids import IdMap
from lmcore.recsys.loading import load_model
from lmcore.recsys.mine import FalseNegativeMiner
from lmcore.recsys.reading import read_interactions
from lmcore.recsys.rules import SplitRule
from lmcore.training.checkpoint import load_state, refusing
from lmcore.training.config import config_from_dict
from lmcore.training.folder import RunFolder

__all__ = ["TrainedRun", "load_run", "read_mined_pairs"]


# Where a run keeps what is read here.
_IDS, _RECIPE, _STATE = "id_map.json", "recipe.json", "state.pt"
# How data are read where nothing is said.
_USUAL_FORM: dict[str, Any] = {
    "format": "auto",
    "user": None,
    "item": None,
    "time": None,
    "skip_bad_rows": False,
}


@dataclass(kw_only=True, slots=True, frozen=True, eq=False)
class TrainedRun:
    """A trained model with the interactions of its users, in its ids."""

    model: SequenceModel
    """The model of the best epoch, in evaluation mode."""
    interactions: Interactions
    """Users with their items; `interactions.item_ids` are the model's."""
    rule: SplitRule = field(default_factory=SplitRule)
    """How the training split them: by any other rule, it has seen what is held out."""
    has_recipe: bool = False
    """Whether that is known, from the recipe of a run; of other weights it is not."""


def load_run(
    path: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    format: str = "auto",  # noqa: A002 - as `read_interactions` calls it
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    skip_bad_rows: bool = False,
    num_attention_heads: int = 1,
    device: str = "auto",
) -> TrainedRun:
    r"""Returns the model of a run and interactions in its ids: what can be ranked or recommended.

    Item ids are read by the run's `id_map.json`; of weights without a run they are the rows of
    the model's table. Where a run filtered its data, items that it does not know are left out,
    and then users with too few interactions.

    Args:
        path: the folder of a run, or a file of SASRec weights as for `load_model`.
        data: interactions as for `read_interactions`; None: the file that the run was trained
            on, read as the training did.
        format: of the data; `auto` is the training's where `data` is None or names its file.
        user: name of the users' column; None: likewise the training's.
        item: name of the items' column; None: likewise.
        time: name of the times' column; None: likewise.
        skip_bad_rows: leave rows out that cannot be used; `interactions.report` lists them.
        num_attention_heads: heads of a file of weights, which does not tell them.
        device: `cpu`, `cuda`, or `auto`: a GPU where there is one.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder holds no model, a file of it is not what it should be, it does not
            say where its data lie, the ids are another model's, or a row cannot be used.

    Example:
        >>> import tempfile
        >>> from lmcore.recsys.configuration_sasrec import SASRecConfig
        >>> from lmcore.recsys.modeling_sasrec import SASRecModel
        >>> from lmcore.recsys.recommendation import recommend
        >>> model = SASRecModel(SASRecConfig(item_count=3, max_length=4, hidden_size=8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_pretrained(folder)
        ...     IdMap(np.array([1]), ("a", "b", "c")).save(Path(folder, "id_map.json"))
        ...     data = Path(folder, "data.inter")
        ...     _ = data.write_text("user_id:token\titem_id:token\nann\tc\nann\ta\n")
        ...     run = load_run(folder, data=data)
        >>> next(recommend(run.model, run.interactions, ["ann"])).items[0][0]
        'b'
    """
    form: dict[str, Any] = {"format": format, "user": user, "item": item, "time": time}
    if data is None:
        data, noted = _find_data(path)
        skip_bad_rows = skip_bad_rows or noted["skip_bad_rows"]
        form = _complete(form, noted)
    elif _is_data_of(path, data):
        form = _complete(form, _find_data(path)[1])
    model = load_model(path, num_attention_heads=num_attention_heads, device=device)
    saved = find_model(path) / _IDS
    if saved.is_file():
        ids = IdMap.load(saved)
    elif Path(path, _RECIPE).is_file():
        raise ValueError(f"{os.fspath(path)}: holds a run without its {_IDS}")
    else:
        ids = IdMap.identity(0, model.config.item_count)
    if len(ids.items) != model.config.item_count:
        raise ValueError(
            f"{saved}: holds {len(ids.items)} items, and the model has {model.config.item_count}"
        )
    recipe = Path(path, _RECIPE)
    least, rule = _find_preparation(recipe)
    # Where a filter left items out, the data hold more than the model knows.
    known = ids if least is None else None
    rows = read_interactions(data, **form, skip_bad_rows=skip_bad_rows, id_map=known)
    if least is not None:
        rows = keep_items(rows, ids, least)
    return TrainedRun(model=model, interactions=rows, rule=rule, has_recipe=recipe.is_file())


def read_mined_pairs(
    path: str | os.PathLike[str], threshold: int | None = None
) -> NDArray[np.int64]:
    """Returns the (user, item) pairs that a run took for false negatives by its newest state.

    They are those of `FalseNegativeMiner.mined_pairs`, in the ids 1..U and 1..I of the training;
    the original ones are `IdMap.users[user - 1]` and `IdMap.items[item - 1]`.

    Args:
        path: the folder of a run.
        threshold: m, how often an item was presented again at least once more; None: the run's
            own, above which it reversed labels.

    Returns:
        `[K, 2]` int64, distinct rows in ascending order.

    Raises:
        OSError: the state or the recipe cannot be read.
        TypeError: `threshold` is no integer.
        ValueError: the folder holds no state, or one that has changed or is broken, its run did
            not mine, `threshold` is below 0, or the run has none and none is given.

    Example:
        >>> import tempfile
        >>> from lmcore.training.checkpoint import save_state
        >>> from lmcore._manifest import write_manifest
        >>> miner = FalseNegativeMiner(threshold=0)
        >>> for _ in range(2):
        ...     injection = miner.inject([1], [[5]], np.array([[7, 9]]))
        ...     miner.observe([1], [[5]], injection, np.array([[0.0, 1.0, -1.0]]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     state = Path(folder, "states", "step-2")
        ...     state.mkdir(parents=True)
        ...     save_state(state / "state.pt", {"run": {"miner": miner.state_dict()}})
        ...     write_manifest(state, "0" * 32, 2)
        ...     read_mined_pairs(folder, threshold=0).tolist()
        [[1, 7]]
    """
    run = RunFolder(path)
    if not run.states:
        raise ValueError(f"{os.fspath(path)}: holds no state of a run")
    newest = run.find("states", run.states[-1])
    if threshold is None:
        threshold = _find_threshold(Path(path) / _RECIPE)
    check_manifest(newest)
    file = newest / _STATE
    state = load_state(file)
    with refusing(file):
        mined = state["run"]["miner"]
    if mined is None:
        raise ValueError(f"{file}: the run did not mine for false negatives")
    miner = FalseNegativeMiner(threshold=threshold)
    with refusing(file):
        miner.load_state_dict(mined)
    return miner.mined_pairs()


def _find_data(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """The file that a run was trained on, and how it was read."""
    recipe = Path(path) / _RECIPE
    if not os.path.lexists(path):
        raise ValueError(f"{os.fspath(path)}: no such file or folder")
    if not recipe.is_file():
        raise ValueError(
            f"{os.fspath(path)}: holds no {_RECIPE} that names the data: give their file"
        )
    data = _read_recipe(recipe).get("data")
    if not isinstance(data, dict) or "path" not in data:
        raise ValueError(
            f"{recipe}: not the recipe of a run: data.path is missing: give their file"
        )
    path = data["path"]
    if not isinstance(path, str | None):
        raise ValueError(f"{recipe}: not the recipe of a run: data.path is no text: {path!r:.100}")
    # Older runs did not note how they read, or had no names of columns.
    noted = {name: data.get(name, usual) for name, usual in _USUAL_FORM.items()}
    for name, usual in _USUAL_FORM.items():
        kinds = (str, NoneType) if usual is None else (type(usual),)
        if type(noted[name]) not in kinds:
            raise ValueError(
                f"{recipe}: not the recipe of a run: data.{name} is {noted[name]!r:.100}"
            )
    if path is None or not Path(path).is_file():
        raise ValueError(f"{recipe}: the data {path} is not there: give their file")
    return path, noted


def _is_data_of(path: str | os.PathLike[str], data: str | os.PathLike[str]) -> bool:
    """Whether a file is the one that a run was trained on, as far as its recipe says."""
    recipe = Path(path) / _RECIPE
    if not recipe.is_file():
        return False
    noted = _read_recipe(recipe).get("data")
    known = noted.get("path") if isinstance(noted, dict) else None
    if not isinstance(known, str):
        return False
    try:
        return Path(known).samefile(data)
    except OSError:
        return False


def _complete(form: dict[str, Any], noted: dict[str, Any]) -> dict[str, Any]:
    """How data are read, as given, and as the training did where nothing was."""
    return {
        name: noted[name] if given == _USUAL_FORM[name] else given for name, given in form.items()
    }


def _find_preparation(recipe: Path) -> tuple[int | None, SplitRule]:
    """The fewest interactions of a user where a run filtered them, and how it split them."""
    data = _read_recipe(recipe).get("data") if recipe.is_file() else None
    if not isinstance(data, dict):
        return None, SplitRule()
    filtered, split = data.get("filter"), data.get("split", {})
    wrong = f"{recipe}: not the recipe of a run: data."
    least = filtered.get("min_user") if isinstance(filtered, dict) else None
    if filtered is not None and (type(least) is not int or not 1 <= least < 1 << 63):
        raise ValueError(f"{wrong}filter is {filtered!r:.100}")
    if not isinstance(split, dict):
        raise ValueError(f"{wrong}split is {split!r:.100}")
    try:
        return least, config_from_dict(SplitRule, split)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{wrong}split: {error}") from None


def _find_threshold(recipe: Path) -> int:
    """The number above which a run reversed labels."""
    if not recipe.is_file():
        raise ValueError(f"{recipe.parent}: holds no {_RECIPE} that says the threshold")
    config = _read_recipe(recipe).get("config")
    if not isinstance(config, dict) or "threshold" not in config:
        raise ValueError(f"{recipe}: not the recipe of a run: config.threshold is missing")
    threshold = config["threshold"]
    if threshold is None:
        raise ValueError(f"{recipe}: the run reversed no labels: say a threshold")
    if type(threshold) is not int or not 0 <= threshold < 1 << 31:
        raise ValueError(
            f"{recipe}: not the recipe of a run: config.threshold is {threshold!r:.100}"
        )
    return threshold


def _read_recipe(file: Path) -> dict[str, Any]:
    content = read_json(file, "the recipe of a run")
    if not isinstance(content, dict):
        raise ValueError(f"{file}: not the recipe of a run: {type(content).__name__}")
    return content
