"""Profiles: what is measured, what is derived of it, and what a file may hold."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from commands import check_line, run_here
from lmcore.diffusion import (
    Curve,
    Process,
    Profile,
    Sampler,
    adaptive_timesteps,
    find_proportions,
    make_profile,
    read_profile,
    write_profile,
)
from lmcore.diffusion import profiling as module
from lmcore.diffusion.data import EncodedPairs, encode_pairs
from lmcore.diffusion.models import save_model
from lmcore.diffusion.noise import SamplingNoise
from lmcore.diffusion.objective import Penalty, View, compute_losses
from lmcore.diffusion.profile import find_gap
from lmcore.diffusion.profile_plots import plot_profiles
from lmcore.diffusion.profiling import plan_profile
from lmcore.diffusion.proportions import summarize_sections
from lmcore.ops import schedule
from lmcore.worlds.diffusion import list_tokens, make_world
from tiny_diffusion import make_model, make_pairs, make_tokenizer

TOTAL = 40
TOKENIZER = make_tokenizer()
ROWS = encode_pairs(make_pairs(5), TOKENIZER, 16)


def make_tiny(seed: int = 0, **changes: Any) -> Any:
    sizes = {"vocab_size": len(list_tokens()), "max_position_embeddings": 16}
    return make_model(seed, **{**sizes, **changes})


@pytest.fixture(scope="module")
def profile() -> Profile:
    return make_profile(make_tiny(), ROWS, points=7, chains=[TOTAL, 4], seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 40 timesteps, and pairs."""
    place: Path = tmp_path_factory.mktemp("profile")
    save_model(make_tiny(), TOKENIZER, place / "model")
    (place / "valid.jsonl").write_text(make_world(1, pairs=5).to_text())
    return place


class Known(nn.Module):
    """A network that knows the texts, or all but a part of the noise that it was shown."""

    def __init__(self, model: Any, rows: EncodedPairs, share: float = 0.0) -> None:
        super().__init__()
        self.model, self.share = model, share
        self.config, self.word_embedding = model.config, model.word_embedding
        self.embed = model.embed
        self.text = model.embed(torch.from_numpy(rows.ids).long()).detach()
        self.eval()

    def forward(self, latents: Tensor, times: Tensor) -> Tensor:
        text = self.text[: len(latents)]
        return text + self.share * (latents - text)


def make_made(**changes: Any) -> Profile:
    """A profile of ten timesteps."""
    values: dict[str, Any] = {
        "forward": make_curve(None, (0, 3, 9), (0.0, 1.0, 2.0), (1.0, 1.0, 4.0)),
        "chains": (make_curve(10, (0, 3, 9), (0.0, 2.0, 1.0), (1.0, 1.0, 1.0)),),
    }
    return Profile(
        total=10, noise_schedule="sqrt", model="ab", data="cd", rows=2, length=8, seed=1,
        tolerance=0.05, **{**values, **changes},
    )  # fmt: skip


def make_curve(
    steps: int | None, timesteps: tuple[int, ...], loss: tuple[float, ...], other: tuple[float, ...]
) -> Curve:
    travel = None if steps is None else other
    return Curve(steps=steps, timesteps=timesteps, loss=loss, distance=other, travel=travel)


# What is measured.


def test_a_perfect_model_has_no_gap() -> None:
    found = make_profile(Known(make_tiny(), ROWS), ROWS, chains=[TOTAL, 4])  # type: ignore[arg-type]
    for curve in (found.forward, *found.chains):
        assert set(curve.loss) == set(curve.distance) == {0.0}
    assert [set(chain.travel or ()) for chain in found.chains] == [{0.0}, {0.0}]
    assert {value for chain in found.chains for value in find_gap(found, chain)} == {0.0}
    with pytest.raises(ValueError, match="the distance of the profile is 0 everywhere"):
        find_proportions(found)


def test_a_model_that_passes_noise_on_has_the_errors_of_the_noise() -> None:
    """An estimate x + s (z - x) errs by s (z - x): by theory, its mean square at each timestep."""
    share, rows = 0.5, encode_pairs(make_pairs(300), TOKENIZER, 16)
    model = Known(make_tiny(), rows, share)
    found = make_profile(model, rows, points=5, chains=[], batch_size=300)  # type: ignore[arg-type]
    betas = schedule.make_betas("sqrt", TOTAL)
    left = np.cumprod(1 - betas)
    text = model.text.numpy()[rows.target_mask]
    for step, loss in zip(found.forward.timesteps, found.forward.loss, strict=True):
        signal = np.sqrt(left[step])
        noise = 1 - left[step] + left[step] * (1 - left[0])
        expected = share**2 * ((signal - 1) ** 2 * (text**2).mean() + noise)
        assert loss == pytest.approx(expected, rel=0.1), step


def test_errors_of_noised_texts_are_those_of_training(profile: Profile) -> None:
    """`compute_losses` counts sources, too: a network that knows them errs at targets alone."""
    model = make_tiny()
    ids, mask = torch.from_numpy(ROWS.ids).long(), torch.from_numpy(ROWS.target_mask)
    text = model.embed(ids).detach()
    noise = SamplingNoise(3, range(5), 16, 6)
    process = Process(schedule.make_betas("sqrt", TOTAL))

    class Told(nn.Module):
        embed, get_logits = model.embed, model.get_logits

        def forward(self, latents: Tensor, times: Tensor) -> Tensor:
            return torch.where(mask[..., None], model(latents, times), text)

    for step, loss in zip(profile.forward.timesteps, profile.forward.loss, strict=True):
        view = View(torch.full((5,), step), noise(module._FORWARD + step))
        with torch.no_grad():
            losses = compute_losses(
                Told(), process, ids, mask, noise(module._START), [view], Penalty(kind="none")
            )
        per_target = losses.mse * 16 / mask.sum(1)
        assert loss == pytest.approx(float(per_target.mean()), rel=1e-5)


def test_distances_are_those_of_the_penalty(profile: Profile) -> None:
    """Of all neighbours the penalty may draw, the far end with less noise; else with more."""
    betas = schedule.make_betas("sqrt", TOTAL)
    near = schedule.find_neighbours(betas, 0.05)
    neighbours = module._choose_neighbours(betas, 0.05)
    assert [*neighbours] == [
        down if down >= 0 else up if up >= 0 else step
        for step, (up, down) in enumerate(zip(*near, strict=True))
    ]
    model, process = make_tiny(), Process(betas)
    ids, mask = torch.from_numpy(ROWS.ids).long(), torch.from_numpy(ROWS.target_mask)
    noise = SamplingNoise(3, range(5), 16, 6)
    with torch.no_grad():
        text = model.embed(ids)
        clean = text + process.start_deviation * noise(module._START)
        for step, distance in zip(profile.forward.timesteps, profile.forward.distance, strict=True):
            estimates = []
            for at, kind in ((step, module._FORWARD), (int(neighbours[step]), module._NEIGHBOUR)):
                times = torch.full((5,), at)
                noisy = process.add_noise(clean, times, noise(kind + step), mask)
                estimates.append(model(noisy, process.scale_times(times)))
            squares = (estimates[0] - estimates[1]).square().mean(-1)
            rows = [float(square[own].mean()) for square, own in zip(squares, mask, strict=True)]
            assert distance == pytest.approx(np.mean(rows), rel=1e-5)


@pytest.mark.parametrize("clamp", [True, False])
def test_chains_are_those_of_sampling(clamp: bool) -> None:
    """Errors and ways of a chain, step by step, by the network's own passes."""
    from lmcore.diffusion.sampling import sample_latents

    model, sampler = make_tiny(), Sampler(clamp=clamp)
    found = make_profile(model, ROWS, points=TOTAL, chains=[4], seed=3, sampler=sampler).chains[0]
    assert found.timesteps == (0, 14, 27, 39)
    ids, mask = torch.from_numpy(ROWS.ids).long(), torch.from_numpy(ROWS.target_mask)
    betas, kept = schedule.make_betas("sqrt", TOTAL), [0, 14, 27, 39]
    process = Process(schedule.space_betas(betas, kept), kept, total_steps=TOTAL)
    noise, passes = SamplingNoise(3, range(5), 16, 6), []

    def denoise(latents: Tensor, times: Tensor) -> Tensor:
        passes.append(model(latents, times))
        return passes[-1]

    text, rounded = model.embed(ids).detach(), []
    sample_latents(
        denoise, process, model.word_embedding.weight, text, mask, start=noise.start(),
        noise=noise, sampler=sampler, callback=lambda step: rounded.append(step.estimates),
    )  # fmt: skip

    def compare(one: Tensor, other: Tensor) -> float:
        squares = (one - other).square().mean(-1)
        return float(np.mean([float(s[m].mean()) for s, m in zip(squares, mask, strict=True)]))

    passes = passes[::-1]
    assert found.loss == pytest.approx([compare(f, text) for f in passes], rel=1e-5)
    assert found.travel is not None
    ways = [compare(one, two) for one, two in pairwise(passes)]
    assert found.travel == pytest.approx([*ways, 0.0], rel=1e-5)
    # The neighbour sees what the sampler made of the estimate, with noise of its own.
    whole, neighbours = Process(betas), module._choose_neighbours(betas, 0.05)
    for step, f, own, distance in zip(kept, passes, rounded[::-1], found.distance, strict=True):
        times = torch.full((5,), int(neighbours[step]))
        drawn = noise(module._CHAIN_NEIGHBOUR + step)
        shown = whole.add_noise(torch.where(mask[..., None], own, text), times, drawn, mask)
        with torch.no_grad():
            other = model(shown, whole.scale_times(times))
        assert distance == pytest.approx(compare(f, other), rel=1e-4)


def test_a_batch_changes_nothing_and_a_seed_does(profile: Profile) -> None:
    model, options = make_tiny(), {"points": 7, "chains": [TOTAL, 4]}
    parts = make_profile(model, ROWS, seed=3, batch_size=2, **options)  # type: ignore[arg-type]
    for one, two in zip(
        (profile.forward, *profile.chains), (parts.forward, *parts.chains), strict=True
    ):
        assert one.timesteps == two.timesteps
        assert one.loss == pytest.approx(two.loss, rel=1e-5)
        assert one.distance == pytest.approx(two.distance, rel=1e-5)
    assert make_profile(model, ROWS, seed=3, **options) == profile  # type: ignore[arg-type]
    other = make_profile(model, ROWS, seed=4, **options)  # type: ignore[arg-type]
    assert other.forward.loss != profile.forward.loss
    assert (other.model, other.data) == (profile.model, profile.data)
    assert make_profile(make_tiny(1), ROWS, points=1, chains=[]).model != profile.model


def test_what_is_planned() -> None:
    plan = plan_profile(2000)
    assert [len(chain) for chain in plan.chains] == [2000, 20]
    assert set(plan.measured[2]) == set(plan.chains[1]) <= set(plan.measured[0])
    assert len(plan_profile(40, points=40, chains=[]).measured[0]) == 40
    assert plan_profile(40, points=1, chains=[]).measured == ((39,),)
    counted: list[int] = []
    make_profile(make_tiny(), ROWS, points=3, chains=[4], progress=counted.append, batch_size=2)
    assert sum(counted) == 5 * plan_profile(40, points=3, chains=[4]).passes
    for arguments in ({"points": 41}, {"points": 0}, {"chains": [41]}, {"chains": [0]}):
        with pytest.raises(ValueError, match="must be from 1 to the 40 timesteps"):
            plan_profile(40, **arguments)  # type: ignore[arg-type]


def test_what_cannot_be_measured() -> None:
    model = make_tiny()
    with pytest.raises(ValueError, match="there are no rows"):
        make_profile(model, encode_pairs([], TOKENIZER, 16))
    with torch.no_grad():
        model.LayerNorm.weight[0] = float("nan")
    with pytest.raises(FloatingPointError, match="the estimates at timestep 0 are not finite"):
        make_profile(model, ROWS, points=2, chains=[])
    with pytest.raises(ValueError, match="in evaluation"):
        make_profile(model.train(), ROWS)


# What is derived.


@pytest.mark.parametrize("by", ["distance", "travel", "gap"])
@pytest.mark.parametrize("sections", [1, 2, 3, 4])
def test_proportions_are_shares(profile: Profile, by: Any, sections: int) -> None:
    shares = find_proportions(profile, sections, by)
    assert len(shares) == sections
    assert min(shares) >= 0
    assert sum(shares) == pytest.approx(1, abs=1e-12)


def test_proportions_are_those_of_the_sums() -> None:
    """Between timesteps that were measured a straight line, by hand."""
    distance = [1.0, 1.0, 1.0, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]
    parts = np.array([sum(distance[:5]), sum(distance[5:])])
    assert find_proportions(make_made(), 2) == pytest.approx(parts / parts.sum())
    # Where errors of the chain are below those of noised texts there is no gap.
    gap = [0.0, 1 / 3, 2 / 3, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0.0]
    parts = np.array([sum(gap[:5]), sum(gap[5:])])
    assert find_proportions(make_made(), 2, "gap") == pytest.approx(parts / parts.sum())


def test_a_long_step_counts_as_many_timesteps() -> None:
    chain = make_curve(3, (0, 3, 9), (0.0, 0.0, 0.0), (3.0, 12.0, 0.0))
    made = make_made(chains=(chain,))
    worth = np.interp(range(10), (0, 3, 9), (1.0, 2.0, 0.0))
    parts = np.array([worth[:5].sum(), worth[5:].sum()])
    assert find_proportions(made, 2, "travel") == pytest.approx(parts / parts.sum())


def test_what_gives_no_proportions() -> None:
    for sections in (0, 11, -1):
        with pytest.raises(ValueError, match="sections must be from 1 to the 10 timesteps"):
            find_proportions(make_made(), sections)
    with pytest.raises(ValueError, match="section 2 of 4 holds none of the 3 timesteps"):
        find_proportions(make_made(), 4)
    with pytest.raises(ValueError, match="by must be one of distance, travel, gap: got 'loss'"):
        find_proportions(make_made(), by="loss")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no chain, which gap is of"):
        find_proportions(make_made(chains=()), by="gap")
    with pytest.raises(TypeError, match="sections must be an int: got bool"):
        find_proportions(make_made(), True)


def test_adaptive_timesteps(profile: Profile, tmp_path: Path) -> None:
    assert adaptive_timesteps(None, 20) == schedule.adaptive_timesteps(2000, 20)
    assert adaptive_timesteps(None, 5, total=40) == schedule.adaptive_timesteps(40, 5)
    file = tmp_path / "profile.json"
    write_profile(profile, file)
    expected = schedule.adaptive_timesteps(40, 6, find_proportions(profile, 2, "gap"))
    for given in (profile, file, str(file), find_proportions(profile, 2, "gap")):
        found = adaptive_timesteps(given, 6, total=40, sections=2, by="gap")
        assert found == expected == sorted(expected, reverse=True)
        assert type(found) is list
        assert {type(step) for step in found} == {int}
    assert adaptive_timesteps(profile, 6, sections=2, by="gap") == expected
    with pytest.raises(ValueError, match="of a model with 2000 timesteps: it is of 40"):
        adaptive_timesteps(file, 6, total=2000)
    with pytest.raises(ValueError, match="got 41"):
        adaptive_timesteps(profile, 41)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own calls of numpy
def test_schedulers_of_diffusers_take_them(profile: Profile) -> None:
    diffusers = pytest.importorskip("diffusers")
    kept = adaptive_timesteps(profile, 6)
    for name in ("DDPMScheduler", "DPMSolverMultistepScheduler"):
        scheduler = getattr(diffusers, name)(num_train_timesteps=40)
        scheduler.set_timesteps(timesteps=kept)
        assert scheduler.timesteps.tolist() == kept


def test_sections_are_summed_up() -> None:
    one, two = summarize_sections(make_made(), 2)
    assert one == {
        "first": 0, "last": 4, "error": 0.5, "distance": 1.0, "error 10": 1.0, "gap 10": 0.5,
    }  # fmt: skip
    assert (two["first"], two["last"], two["gap 10"]) == (5, 9, -1.0)
    assert summarize_sections(make_made(), 4)[2]["error"] is None


# Files.


def test_a_file_holds_all(profile: Profile, tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    for file in (one, two):
        write_profile(profile, file)
    assert one.read_bytes() == two.read_bytes()
    assert read_profile(one) == profile


def test_a_write_that_fails_leaves_what_was_there(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "profile.json"
    file.write_text("before")

    def fail(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lmcore._files.rename_over", fail)
    with pytest.raises(KeyboardInterrupt):
        write_profile(profile, file)
    assert [*tmp_path.iterdir()] == [file]
    assert file.read_text() == "before"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ('"version": 1|"version": 2', "version must be 1: got 2"),
        ('"version": 1|"version": true', "version must be 1: got True"),
        ('"format": "lmcore.diffusion.profile"|"format": "x"', "format must be"),
        ('"rows": 2|"rows": 2, "rows": 3', "the key 'rows' stands twice"),
        ('"rows": 2|"rows": 2, "more": 3', "'more' is unknown"),
        ('"rows": 2, |', "rows is missing"),
        ('"rows": 2|"rows": 0', "rows must be a whole number from 1"),
        ('"rows": 2|"rows": ' + "9" * 5000, "digits"),
        ('"total": 10|"total": 1099511627776', "total must be a whole number from 1 to 16777216"),
        ('"total": 10|"total": 9', "timesteps must ascend from at least 0 to below 9: got 9"),
        ('"noise_schedule": "sqrt"|"noise_schedule": "\\u001b"', r"got '\\x1b'"),
        ('"timesteps": [0, 3|"timesteps": [3, 3', "must ascend"),
        ('"loss": [0.0|"loss": [NaN', "NaN is no number of JSON"),
        ('"loss": [0.0|"loss": [1e999', "1e999 is too large a number"),
        ('"loss": [0.0|"loss": [-1.0', r"loss\[0\] must be a number that is at least 0: got -1.0"),
        ('"loss": [0.0|"loss": [1' + "0" * 400, "must be a number that is at least 0"),
        ('"loss": [0.0|"loss": [0.0, 0.0', "must be a list of 3 numbers"),
        ('"loss": [0.0|"loss": ["0"', "must be a number"),
        ('"steps": 10|"steps": 2', r"chains\[0\].steps must be a whole number from 3 to 10: got 2"),
        ('"steps": null|"steps": 3', "forward.steps must be null"),
        ('"chains": [|"chains": [3, ', r"chains\[0\] must be an object"),
    ],
)
def test_a_file_that_holds_something_else(tmp_path: Path, change: str, problem: str) -> None:
    file = tmp_path / "profile.json"
    write_profile(make_made(), file)
    old, new = change.split("|")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=problem) as caught:
        read_profile(file)
    assert str(caught.value).startswith(f"{file}: not a profile of text diffusion: ")


def test_a_chain_of_other_timesteps_is_refused(tmp_path: Path) -> None:
    chain = make_curve(10, (0, 4), (0.0, 0.0), (0.0, 0.0))
    write_profile(make_made(chains=(chain,)), tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"chains\[0\] must have timesteps of forward alone"):
        read_profile(tmp_path / "a.json")


def test_figures(profile: Profile, tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg", "three.png"):
        plot_profiles({"$a_{": profile, "b\x1b": profile}, tmp_path / name)
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    assert "$a_{: chain of 4" in text
    assert "b\\x1b: noised texts" in text
    assert (tmp_path / "three.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match=r"a plot must be a \.svg or a \.png file"):
        plot_profiles({"a": profile}, tmp_path / "a.pdf")
    other = {"a": profile, "b": replace(profile, noise_schedule="linear")}
    with pytest.raises(ValueError, match="b: expected a profile of 40 timesteps of sqrt"):
        plot_profiles(other, tmp_path / "a.svg")
    with pytest.raises(ValueError, match="profiles must be from 1 to 7: got 0"):
        plot_profiles({}, tmp_path / "a.svg")


# The command.


def give(folder: Path, out: Path, *more: Any) -> list[Any]:
    options = ["--points", 4, "--steps", 4, "--length", 16, "--device", "cpu", "--quiet"]
    return ["diffusion", "profile", folder / "model", folder, "--out", out, *options, *more]


def test_the_command(folder: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "a.json", tmp_path / "b.json"
    code, output, errors = run_here(*give(folder, out, "--pairs", 3))
    assert (code, errors) == (0, "")
    head, *lines = output.splitlines()
    assert head.split("  ")[0] == "timesteps"
    assert [line.split()[0] for line in lines] == ["0-13", "14-26", "27-39"]
    found = read_profile(out)
    assert (found.rows, [chain.steps for chain in found.chains]) == (3, [40, 4])
    assert run_here(*give(folder, other, "--pairs", 3, "--json"))[0] == 0
    assert other.read_bytes() == out.read_bytes()
    more = ["--no-full", "--plot", tmp_path / "a.svg", "--against", other, "--json", "--by", "gap"]
    code, output, errors = run_here(*give(folder, out, *more))
    assert (code, errors) == (0, "")
    assert json.loads(output)["proportions"] == find_proportions(read_profile(out), by="gap")
    assert "model: chain of 4" in (tmp_path / "a.svg").read_text()
    assert "b.json: chain of 40" in (tmp_path / "a.svg").read_text()


def test_what_the_command_refuses(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    made = make_made()
    write_profile(made, tmp_path / "ten.json")
    for more, text in (
        (["--steps", 41], "steps must be from 1 to the 40 timesteps: got 41"),
        (["--points", 41], "points must be from 1 to the 40 timesteps: got 41"),
        (["--sections", 41], "--sections must be at most the 40 timesteps: got 41"),
        (["--by", "loss"], "--by must be one of distance, travel, gap"),
        (["--plot", tmp_path / "a.pdf"], "a plot must be a .svg or a .png file"),
        (["--against", tmp_path / "ten.json"], "--against goes with --plot"),
        (["--against", tmp_path / "no.json", "--plot", tmp_path / "a.svg"], "no.json"),
        (["--against", tmp_path / "ten.json", "--plot", tmp_path / "a.svg"], "of 10 of sqrt"),
        (["--length", 17], "length must be at most the 16 positions of the model: got 17"),
    ):
        check_line(run_here(*give(folder, out, *more)), text)
        assert [file.name for file in tmp_path.iterdir()] == ["ten.json"], more
    twice = ["--against", tmp_path / "ten.json", "--against", f"{tmp_path}/ten.json"]
    check_line(run_here(*give(folder, out, *twice, "--plot", tmp_path / "a.svg")), "named twice")
    svg = tmp_path / "a.svg"
    check_line(run_here(*give(folder, svg, "--plot", svg)), "must be two files")
    weights = folder / "model" / "config.json"
    check_line(run_here(*give(folder, weights)), "config.json: the output is an input too")
    given = give(folder, folder / "valid.jsonl")
    given[3] = folder / "valid.jsonl"
    check_line(run_here(*given), "the output is an input too")
