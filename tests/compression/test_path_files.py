"""Paths as JSON: what is written is read, and anything else is refused by name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmcore.compression.choosing import Sizes
from lmcore.compression.counting import count_files
from lmcore.compression.path import PathConfig, PathStage, SizesCut, TargetCut, VocabularyCut
from lmcore.compression.path_cuts import settle_stages
from lmcore.compression.path_files import dump_path, dump_recovery, load_path, read_path, write_path
from lmcore.compression.pieces.folder import TokenizerFolder
from lmcore.compression.plan import Plan, Stage, prune_shape
from lmcore.compression.planning import add_chosen_stage
from lmcore.compression.recipes import (
    OPENBA_V1,
    PATHS,
    RECOVERY_RECIPES,
    openba_v2,
    openba_v2_path,
    tiny_path,
)
from lmcore.compression.vocabulary import choose_tokens
from lmcore.cost import count_parameters
from lmcore.openba import OpenBATokenizer
from lmcore.training.config import change
from lmcore.worlds.openba import make_world, write_piece_file

STAGES = (
    PathStage(name="one", cut=Stage(decoder_layers=(0, 2, 3), decoder_ffn={0: range(3)}, seed=2)),
    PathStage(
        name="two",
        cut=SizesCut(hidden=8, heads=2, ffn=7, vocabulary=range(9), choose="taylor", seed=7,
                     layers="adjacent", text="t.txt", tokens=99),
        recover=change(RECOVERY_RECIPES["tiny"](), {"loop.steps": 5, "optimizer.betas": (0, 0.9)}),
        teacher="previous", data=("a", "b"), valid=("c",),
    ),
    PathStage(name="three", cut=TargetCut(goal="params=25%", seed=1), published_parameters=7),
    PathStage(name="four", cut=VocabularyCut(keep=600, keep_per={"zh": 9}, counts="counts")),
    PathStage(name="five", recover=RECOVERY_RECIPES["o_ul2"](), teacher="none"),
)  # fmt: skip
PATH = PathConfig(model="large", data=("train",), stages=STAGES)


@pytest.mark.parametrize("path", [PATH, *(recipe(3) for recipe in PATHS.values())])
def test_what_is_written_is_read(tmp_path: Path, path: PathConfig) -> None:
    assert load_path(json.loads(json.dumps(dump_path(path))), "") == path
    write_path(tmp_path / "path.json", path)
    found = read_path(tmp_path / "path.json")
    assert dump_path(found)["stages"][0] == dump_path(path)["stages"][0]


def test_names_lie_beside_the_file(tmp_path: Path) -> None:
    write_path(tmp_path / "path.json", PATH)
    found = read_path(tmp_path / "path.json")
    assert (found.model, found.data) == (str(tmp_path / "large"), (str(tmp_path / "train"),))
    two, four = found.stages[1], found.stages[3]
    assert (two.data, two.valid) == (
        (str(tmp_path / "a"), str(tmp_path / "b")), (str(tmp_path / "c"),)
    )  # fmt: skip
    assert isinstance(two.cut, SizesCut)
    assert isinstance(four.cut, VocabularyCut)
    assert (two.cut.text, four.cut.counts) == (str(tmp_path / "t.txt"), str(tmp_path / "counts"))
    assert load_path({**dump_path(PATH), "model": "/else"}, tmp_path).model == "/else"


def test_training_is_told_by_the_nearest_recipe() -> None:
    for name, recipe in RECOVERY_RECIPES.items():
        assert dump_recovery(recipe()) == {"recipe": name}
    told = dump_recovery(change(RECOVERY_RECIPES["causal"](), {"device.device": "cpu"}))
    assert told == {"recipe": "causal", "set": {"device.device": "cpu"}}


def stage(**values: Any) -> dict[str, Any]:
    return {"format": "lmcore-path", "version": 1, "stages": [{"name": "a", **values}]}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([], "the file must be an object"),
        ({}, "format must be lmcore-path: got None"),
        ({"format": "lmcore-path", "version": True}, "version must be 1: got True"),
        ({"format": "lmcore-path", "version": 1}, "stages must be a list: got None"),
        ({"format": "lmcore-path", "version": 1, "stages": []}, "from 1 to 100 stages: got none"),
        ({**stage(), "steps": 1}, "got 'steps', too"),
        ({**stage(sizes={"ffn": 7}), "model": 3}, "model must be the name of a file: got 3"),
        ({**stage(sizes={"ffn": 7}), "data": [1]}, "data must be the name of a file: got 1"),
        (stage(), r"stage 1 \(a\): the stage a neither cuts nor trains"),
        (stage(size={"ffn": 7}), r"stage 1 \(a\): expected .*: got 'size', too"),
        (stage(keep={}), "names nothing that is kept"),
        (stage(keep={"hidden": [0]}), "hidden must be indices such as 0-3,7"),
        (stage(keep={"hidden": "3-1"}), "indices must rise"),
        (stage(keep={"hidden": "0-4194304"}), "there is no 4194304"),
        (stage(keep={"hidden": "0", "name": "b"}), "keep: expected .*: got 'name', too"),
        (stage(keep={"decoder_ffn": {"x": "0"}}), "decoder_ffn must name layers: got 'x'"),
        (stage(sizes={}), "expected a size to leave"),
        (stage(sizes={"ffn": 0}), "ffn must be at least 1"),
        (stage(sizes={"ffn": 1.5}), "ffn must be int"),
        (stage(sizes={"ffn": 7, "choose": "luck"}), "choose must be random or"),
        (stage(sizes={"ffn": 7, "choose": "block_influence"}), "scores layers alone"),
        (stage(sizes={"decoder_layers": 7, "choose": "taylor"}), "taylor scores widths"),
        (stage(sizes={"ffn": 7}, target={"goal": "params=1"}), "got sizes and target"),
        (stage(target={"goal": "luck=1"}), "a target must be one of"),
        (stage(target={"goal": "ms_per_token=1"}), "goal must be params or memory_mb"),
        (stage(target={}), "goal"),
        (stage(vocabulary={}), "keep"),
        (stage(vocabulary={"keep": 7, "keep_per": {"zh": "x"}}), "keep_per"),
        (stage(vocabulary={"keep": 7, "keep_per": {"zh": 5}}), "the group 'zh', which takes count"),
        (stage(vocabulary={"keep": 7, "keep_per": {"zh": -1}, "counts": "c"}), "not be negative"),
        (stage(sizes={"ffn": 7}, name="../b"), "the name of a stage must be"),
        (stage(sizes={"ffn": 7}, name=7), "the name of a stage must be"),
        (stage(sizes={"ffn": 7}, teacher="mine"), "teacher must be original or previous or none"),
        (stage(recover={"recipe": "luck"}), "recipe must be one of d_ul2, .*: got 'luck'"),
        (stage(recover={"recipe": "tiny", "set": {"luck": 1}}), "'luck' is no setting"),
        (stage(recover={"recipe": "tiny", "set": {"batch_size": 0}}), "batch_size must be at"),
        (stage(recover={"recipe": "tiny", "steps": 1}), "got 'steps', too"),
        (stage(sizes={"ffn": 7}, published_parameters="x"), "published_parameters"),
        (stage(keep={"hidden": "0"}, published_parameters=[]), "published_parameters must be"),
        (stage(sizes={"ffn": 7}, data="\ud800"), "data must be the name of a file"),
    ],
)  # fmt: skip
def test_what_no_path_holds(tmp_path: Path, content: Any, text: str) -> None:
    file = tmp_path / "path.json"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"^{file}: not a path: .*{text}"):
        read_path(file)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"format": "lmcore-path", "format": "lmcore-path"}', "the key 'format' stands twice"),
        ('{"version": NaN}', "NaN is no number"),
        ("[" * 5000, "nested too deeply"),
        ("", "Expecting value"),
        (json.dumps({**stage(), "stages": [{"name": "a", "sizes": {"ffn": 7}}] * 2}),
         "two stages are called a"),
        (json.dumps({**stage(), "stages": [{"name": f"s{n}", "keep": {"hidden": "0-4000000"}}
                                           for n in range(3)]}), "at most 8388608 indices"),
    ],
)  # fmt: skip
def test_what_is_no_json_of_a_path(tmp_path: Path, content: str, text: str) -> None:
    file = tmp_path / "path.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"^{file}: not a path: .*{text}"):
        read_path(file)


def test_the_paper_s_path_leaves_what_its_plan_leaves() -> None:
    """Layers, widths, tokens: the shapes of `openba_v2`, and the tokens of the table."""
    path, plan = openba_v2_path(), openba_v2()
    made = Plan(model_type="openba", shape=OPENBA_V1)
    for one in path.stages[:3]:
        assert isinstance(one.cut, Stage)
        made = replace(made, stages=(*made.stages, one.cut))
    cut = path.stages[3].cut
    assert isinstance(cut, SizesCut)
    sizes = {name: getattr(cut, name) for name in ("hidden", "heads", "ffn", "vocabulary")}
    made, _ = add_chosen_stage(made, Sizes(**sizes), seed=cut.seed)
    for number in range(5):
        assert prune_shape(made, number) == prune_shape(plan, number)
    assert made.stages[3].decoder_ffn == plan.stages[3].decoder_ffn
    assert [one.published_parameters for one in path.stages] == [
        one.published_parameters for one in plan.stages
    ]
    last = path.stages[-1].cut
    assert isinstance(last, VocabularyCut)
    assert last.keep == prune_shape(plan).vocabulary_size
    assert count_parameters(prune_shape(made)).distinct == 3_808_598_400


def test_the_tokens_of_the_table() -> None:
    tokens = []
    for one in openba_v2_path().stages[:5]:
        config = one.recover
        assert config is not None
        assert config.batch_size == 1024
        tokens.append(config.loop.steps * config.batch_size * config.text_tokens)  # type: ignore[operator]
        assert config.optimizer.weight_decay == 0.1
        assert (config.optimizer.betas, config.optimizer.clip_norm) == ((0.9, 0.95), 1.0)
        assert (config.schedule.kind, config.schedule.final_share) == ("cosine", 0.5)
        assert config.schedule.decay_steps is None
    assert [round(total / 1e9, 2) for total in tokens] == [10.0, 10.0, 15.0, 65.0, 700.0]
    configs = [one.recover for one in openba_v2_path().stages[:5]]
    assert [config and config.optimizer.lr for config in configs] == [2e-5] * 4 + [1e-5]
    assert [config and config.schedule.warmup_steps for config in configs] == [1000] * 4 + [0]
    assert [config and config.objective for config in configs] == ["d_ul2"] * 4 + ["o_ul2"]
    # The script's 22,500 steps are far from it.
    assert round(22_500 * 1024 * 568 / 1e9, 1) == 13.1


def test_the_tiny_path_is_one_for_the_tiny_model(tmp_path: Path) -> None:
    """Its last stage trains nothing, so that what texts have must stay."""
    write_piece_file(tmp_path / "spiece.model")
    OpenBATokenizer(tmp_path / "spiece.model").save_pretrained(tmp_path)
    (tmp_path / "a.txt").write_text(make_world(0, documents=400).to_text(), encoding="utf-8")
    shape = replace(
        OPENBA_V1, encoder_layers=2, decoder_layers=4, hidden_size=128, heads=4, groups=4,
        head_size=32, inner_size=352, vocabulary_size=1152,
    )  # fmt: skip
    path = settle_stages(tiny_path(), Plan(model_type="openba", shape=shape))
    cut = path.stages[-1].cut
    assert isinstance(cut, VocabularyCut)
    counts = count_files([tmp_path / "a.txt"], tmp_path, tmp_path / "counts").counts
    chosen = choose_tokens(TokenizerFolder(tmp_path).table, counts.groups, cut.keep)
    assert len(chosen.ids) == cut.keep < len(TokenizerFolder(tmp_path).table)
    assert chosen.coverage["all"] > 0.99
