"""Plans: what they refuse, how they compose, and their files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcore.compression.composition import add_stage, compose, split_stages
from lmcore.compression.indices import format_indices, parse_indices
from lmcore.compression.plan import (
    FLAT,
    LAYERED,
    Kept,
    Plan,
    Stage,
    find_kept,
    find_sizes,
    prune_shape,
)
from lmcore.compression.plan_files import (
    dump_plan,
    load_plan,
    read_plan,
    write_plan,
)
from lmcore.cost import Shape

SHAPE = Shape(
    encoder_layers=3, decoder_layers=5, hidden_size=12, heads=8, groups=4, head_size=2,
    inner_size=10, vocabulary_size=20,
)  # fmt: skip
PLAN = Plan(model_type="toy", shape=SHAPE)


def same_layers(layers: Any, indices: Any) -> dict[int, Any]:
    return dict.fromkeys(layers, indices)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan of up to four stages, whose widths are the same in all layers."""
    plan = PLAN
    for number in range(draw(st.integers(0, 4))):
        kept, values = find_kept(plan), dict[str, Any]()
        sizes: dict[str, int] = {}
        for name in (*FLAT, *LAYERED):
            old = getattr(kept, name)
            stack = name.partition("_")[0] + "_layers"
            if name in FLAT:
                if draw(st.booleans()):
                    values[name] = sorted(draw(st.sets(st.sampled_from(old), min_size=1)))
                continue
            dimension = name.partition("_")[2]
            if name.startswith("encoder"):
                width = len(next(iter(old.values())))
                sizes[dimension] = draw(st.integers(1, width))
            layers = values.get(stack, getattr(kept, stack))
            some = st.permutations
            values[name] = {
                layer: sorted(draw(some(old[layer]))[: sizes[dimension]]) for layer in layers
            }
        plan = replace(plan, stages=(*plan.stages, Stage(name=str(number), **values)))
    return plan


@given(plans())
@settings(max_examples=60, deadline=None)
def test_plans_compose_and_survive_their_files(plan: Plan) -> None:
    kept, sizes = find_kept(plan), find_sizes(plan.shape)
    assert load_plan(json.loads(json.dumps(dump_plan(plan)))) == plan
    assert find_kept(compose(plan)) == kept
    assert prune_shape(compose(plan)) == prune_shape(plan)
    # Arrays cut stage by stage are arrays cut at once.
    places = {name: np.arange(sizes[name]) for name in FLAT}
    units = {
        name: {layer: np.arange(sizes[name]) for layer in range(sizes[f"{name[:7]}_layers"])}
        for name in LAYERED
    }
    for part in split_stages(plan):
        step = find_kept(part)
        for name in FLAT:
            places[name] = places[name][[*getattr(step, name)]]
        for name in LAYERED:
            layers = getattr(step, f"{name[:7]}_layers")
            units[name] = {
                new: units[name][old][[*getattr(step, name)[old]]] for new, old in enumerate(layers)
            }
    for name in FLAT:
        assert tuple(places[name].tolist()) == getattr(kept, name)
    for name in LAYERED:
        found = {layer: tuple(x.tolist()) for layer, x in units[name].items()}
        assert [*found.values()] == [*getattr(kept, name).values()]


def test_what_no_stage_names_is_whole() -> None:
    assert find_kept(PLAN) == Kept(
        encoder_layers=(0, 1, 2), decoder_layers=(0, 1, 2, 3, 4), hidden=tuple(range(12)),
        vocabulary=tuple(range(20)), encoder_heads=same_layers(range(3), (0, 1, 2, 3)),
        decoder_heads=same_layers(range(5), (0, 1, 2, 3)),
        encoder_ffn=same_layers(range(3), tuple(range(10))),
        decoder_ffn=same_layers(range(5), tuple(range(10))),
    )  # fmt: skip
    assert (prune_shape(PLAN), split_stages(PLAN)) == (SHAPE, [])


def test_layers_that_are_cut_take_their_widths_along() -> None:
    heads = {layer: (layer % 4, 3) if layer % 4 < 3 else (0, 3) for layer in range(5)}
    stages = [
        Stage(decoder_heads=heads, encoder_heads=same_layers(range(3), (1, 2))),
        Stage(decoder_layers=[1, 4]),
    ]
    plan = replace(PLAN, stages=stages)
    assert find_kept(plan).decoder_heads == {1: (1, 3), 4: (0, 3)}
    shape = prune_shape(plan)
    assert (shape.heads, shape.groups, shape.decoder_layers) == (4, 2, 2)
    second = split_stages(plan)[1]
    assert (second.shape.groups, second.stages[0].decoder_layers) == (2, (1, 4))


def test_layers_can_be_named_by_what_is_cut() -> None:
    plan = add_stage(PLAN, Stage(name="a"), cut_encoder=[1], cut_decoder=[3, 1])
    plan = add_stage(plan, Stage(name="b", hidden=range(4)), cut_decoder=[2])
    assert find_kept(plan).decoder_layers == (0, 4)
    assert plan.stages[1].encoder_layers is None
    for twice in ([1], [2, 2]):
        with pytest.raises(ValueError, match=r"^stage 3: decoder_layers: [12] is cut twice$"):
            add_stage(plan, Stage(), cut_decoder=[*twice])
    with pytest.raises(IndexError, match="stage 3: decoder_layers has no 5: the original has 5"):
        add_stage(plan, Stage(), cut_decoder=[5])
    with pytest.raises(ValueError, match="must either be kept or cut"):
        add_stage(plan, Stage(decoder_layers=[0]), cut_decoder=[4])
    with pytest.raises(ValueError, match="must keep something"):
        add_stage(PLAN, Stage(), cut_encoder=[0, 1, 2])


@pytest.mark.parametrize(
    ("stages", "kind", "message"),
    [
        ([{"hidden": [0, 12]}], IndexError, "stage 1: hidden has no 12: the original has 12, "),
        ([{"hidden": [-1, 3]}], IndexError, "stage 1: hidden has no -1"),
        ([{"decoder_layers": [0]}, {"decoder_layers": [0, 2]}], ValueError,
         "stage 2: decoder_layers keeps 2, which an earlier stage has cut"),
        ([{"hidden": [0, 1]}, {"name": "x", "hidden": range(9)}], ValueError,
         r"stage 2 \(x\): hidden keeps 2, 3, 4, 5, 6 and 2 more, which"),
        ([{"encoder_ffn": {0: [1], 1: [2]}}], ValueError,
         "stage 1: encoder_ffn must name the kept layers and no others: it lacks 2"),
        ([{"encoder_layers": [0, 1], "encoder_ffn": same_layers(range(3), [1])}], ValueError,
         "it names 2"),
        ([{"encoder_heads": same_layers(range(3), [4])}], IndexError,
         "stage 1: encoder_heads of layer 0 has no 4: the original has 4"),
        ([{"encoder_layers": []}], ValueError, "stage 1: encoder_layers must keep something"),
    ],
)  # fmt: skip
def test_stages_that_are_refused(stages: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^[^\n]*{message}"):
        replace(PLAN, stages=[Stage(**stage) for stage in stages])


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"hidden": [2, 1]}, ValueError, "hidden must rise: got 1 behind 2"),
        ({"hidden": [1, 1]}, ValueError, "hidden must rise: got 1 behind 1"),
        ({"hidden": []}, ValueError, "hidden must keep something"),
        ({"hidden": [True]}, TypeError, "hidden must be whole numbers"),
        ({"hidden": [0.0, 1.0]}, TypeError, "hidden must be whole numbers"),
        ({"hidden": np.array([0.5])}, TypeError, "hidden must be whole numbers"),
        ({"hidden": "0-3"}, TypeError, "hidden must be whole numbers"),
        ({"hidden": [2**70]}, ValueError, "hidden must be below"),
        ({"encoder_ffn": [[0]]}, TypeError, "encoder_ffn must map layers to indices"),
        ({"encoder_ffn": {"0": [0]}}, TypeError, "got the layer '0'"),
        ({"encoder_ffn": {0: [3, 3]}}, ValueError, "encoder_ffn of 0 must rise"),
        ({"seed": -1}, ValueError, "seed must be from 0 to"),
        ({"seed": 1.0}, TypeError, "seed must be a whole number"),
        ({"name": 3}, TypeError, "name must be a text"),
    ],
)
def test_indices_that_are_refused(fields: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Stage(**fields)


def test_widths_must_be_alike() -> None:
    ffn = {0: [0, 1, 2], 1: [0, 1, 2], 2: [0]}
    plan = replace(PLAN, stages=[Stage(encoder_ffn=ffn)])
    with pytest.raises(ValueError, match="as many ffn: got from 1 to 10; the nearest is 10 in all"):
        prune_shape(plan)


# Files.


@given(st.sets(st.integers(0, 60)))
def test_ranges(indices: set[int]) -> None:
    text = format_indices(sorted(indices))
    assert parse_indices(text, 61).tolist() == sorted(indices)
    if indices:
        with pytest.raises(IndexError, match=f"^there is no {max(indices)}: "):
            parse_indices(text, max(indices))


@pytest.mark.parametrize(
    "text", ["3,1", "1,1", "3-2", "-1", "1-", "a", " 1", "1,", ",", "01", "1-2-3", "١", "1_0", "+1"]
)
def test_texts_that_are_no_ranges(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected indices such as 0-3,7|indices must rise"):
        parse_indices(text, 10**6)


def test_a_large_range_makes_nothing() -> None:
    with pytest.raises(IndexError, match="there is no 4999999999: the original has 7"):
        parse_indices("0-4999999999", 7)


def write(folder: Path, text: Any) -> Path:
    file = folder / "plan.json"
    file.write_text(text if isinstance(text, str) else json.dumps(text))
    return file


GOOD = dump_plan(replace(PLAN, stages=[Stage(hidden=[0, 1], seed=3, method="random")]))


def test_files(tmp_path: Path) -> None:
    plan = load_plan(GOOD)
    write_plan(tmp_path / "plan.json", plan)
    assert read_plan(tmp_path / "plan.json") == plan
    assert '"hidden": "0-1"' in (tmp_path / "plan.json").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "Expecting value"),
        ("[]", "the file must be an object"),
        ('{"format": "lmcore-plan", "format": "lmcore-plan"}', "the key 'format' stands twice"),
        ("[" * 200_000, "nested too deeply"),
        ({**GOOD, "format": "other"}, "format must be lmcore-plan: got 'other'"),
        ({**GOOD, "version": True}, "version must be 1: got True"),
        ({**GOOD, "more": 1}, "got 'more', too"),
        ({key: value for key, value in GOOD.items() if key != "stages"}, "stages is missing"),
        ({**GOOD, "shape": {**GOOD["shape"], "heads": 7}}, "groups must divide heads"),
        ({**GOOD, "shape": {**GOOD["shape"], "depth": 7}}, "got 'depth', too"),
        (
            {**GOOD, "shape": {**GOOD["shape"], "inner_size": 2**31 - 1}},
            "inner_size must be at mos",
        ),
        ({**GOOD, "shape": 3}, "shape must be an object"),
        ({**GOOD, "model_type": 3}, "model_type must be a text"),
        ({**GOOD, "stages": {}}, "stages must be a list"),
        ({**GOOD, "stages": [3]}, "stage 1 must be an object"),
        ({**GOOD, "stages": [{"widths": "0"}]}, "stage 1: expected name, encoder_layers"),
        ({**GOOD, "stages": [{"hidden": [0]}]}, "stage 1: hidden must be indices such as"),
        ({**GOOD, "stages": [{"hidden": "0-12"}]}, "stage 1: hidden: there is no 12"),
        ({**GOOD, "stages": [{"encoder_ffn": {"00": "0"}}]}, "must name layers: got '00'"),
        ({**GOOD, "stages": [{"encoder_ffn": {"0": "0"}}]}, "it lacks 1, 2"),
        ({**GOOD, "stages": [{"seed": 1.5}]}, "stage 1: seed must be a whole number"),
        (json.dumps(GOOD).replace('"seed": 3', '"seed": NaN'), "NaN is no number of JSON"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    file = write(tmp_path, content)
    with pytest.raises(ValueError, match=r"^[^\n]{1,500}$") as caught:
        read_plan(file)
    assert str(caught.value).startswith(f"{file}: not a plan: ")
    assert message in str(caught.value)


def test_a_plan_of_a_large_model_is_small(tmp_path: Path) -> None:
    """48 layers that keep 6,912 of 11,008 units, drawn: 16 bits a unit at most."""
    rng = np.random.default_rng(0)
    shape = replace(SHAPE, encoder_layers=12, decoder_layers=36, inner_size=11008)
    ffn = {
        f"{stack}_ffn": {
            layer: sorted(rng.choice(11008, 6912, replace=False).tolist()) for layer in range(count)
        }
        for stack, count in (("encoder", 12), ("decoder", 36))
    }
    plan = Plan(model_type="toy", shape=shape, stages=(Stage(**ffn),))
    write_plan(tmp_path / "plan.json", plan)
    assert (tmp_path / "plan.json").stat().st_size < 48 * 6912 * 5
    assert read_plan(tmp_path / "plan.json") == plan
