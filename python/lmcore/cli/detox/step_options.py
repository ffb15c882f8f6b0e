"""Options that the commands of the steps share, and how they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.detox.scorer_options import SCORER_HELP, check_device, open_scorer, say_windows
from lmcore.cli.failures import starting
from lmcore.cli.options import decimal, limit_threads, name_of_file, plain_text, whole
from lmcore.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lmcore.detox import PipelineSummary, Scorer
    from lmcore.detox.steps import Step

Rows = Annotated[
    str,
    typer.Argument(
        metavar="ROWS",
        parser=name_of_file,
        help="Rows of the step before, as JSONL. .gz is decompressed, `-` is standard input.",
        show_default=False,
    ),
]
Prompts = Annotated[
    str,
    typer.Argument(
        metavar="PROMPTS",
        parser=name_of_file,
        help="JSONL with text or prompt, rows of RealToxicityPrompts, or lines (.txt). .gz is "
        "decompressed, `-` is standard input.",
        show_default=False,
    ),
]
Filler = Annotated[
    str,
    typer.Option(
        metavar="DIR",
        parser=name_of_file,
        help="Folder of a model that fills gaps: BART, T5 or their kin.",
        show_default=False,
    ),
]
LanguageModel = Annotated[
    str,
    typer.Option(
        metavar="DIR",
        parser=name_of_file,
        help="Folder of a language model, causal or encoder-decoder, or of an adapter.",
        show_default=False,
    ),
]
ScorerName = Annotated[
    str,
    typer.Option(
        metavar="NAME|DIR|FILE", parser=name_of_file, help=SCORER_HELP, show_default=False
    ),
]
Attempts = Annotated[
    int, whole(1, 2**20 - 1, text="K, times that masks are filled until a text is acceptable.")
]
CleanThreshold = Annotated[
    float, decimal(0.0, 1.0, text="A text is clean whose toxicity is at most so high.")
]
LeastSimilarity = Annotated[
    float | None,
    decimal(0.0, 1.0, text="A text is similar whose similarity is higher, such as 0.4; any is."),
]
SimilarityModel = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        parser=name_of_file,
        help="Folder of an encoder of sentences; character n-grams by default.",
    ),
]
Samples = Annotated[int, whole(1, 2**20, text="Continuations of each prompt.")]
MaxNewTokens = Annotated[int, whole(1, 2**20, text="Of a continuation.")]
TopP = Annotated[
    float, decimal(0.0, 1.0, text="Tokens are drawn from the likeliest that come to it; not 0.")
]
Temperature = Annotated[float, decimal(0.0, 1000.0, text="By which scores are divided; not 0.")]
Seed = Annotated[int, whole(0, 2**64 - 1, text="Of the noise of what is drawn.")]
BatchSize = Annotated[int, whole(1, 65536, text="Texts that a model reads together.")]
Field = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        parser=plain_text,
        help="Key of the prompt in a row; text or prompt by default.",
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="auto|jsonl|realtoxicityprompts|lines",
        parser=plain_text,
        help="Form of the rows; auto looks at the name and the rows.",
    ),
]

_TEXTS = {
    "passed": "prompts are not toxic by their own score, and passed as they are",
    "masked": "prompts have masks",
    "masks": "masks in them",
    "attempts": "times a prompt was filled",
    "rephrased": "prompts rephrased, clean and similar",
    "unclean": "rephrased prompts are not clean after all attempts: marked",
    "dissimilar": "rephrased prompts are clean and not similar after all attempts: marked",
    "unfilled": "prompts were filled in no attempt: marked, and without a rephrased text",
    "missed": "prompts are toxic, and nothing in them is masked: marked",
    "lost_mask": "attempts lost a mask",
    "copied_mask": "attempts left a mask as it was",
    "empty": "attempts gave an empty text",
    "cut_texts": "rephrased prompts ended for want of room",
    "samples": "continuations",
    "empty_samples": "continuations are empty",
    "not_continued": "prompts without a rephrased text are not continued",
    "selected": "prompts with continuations for a chain",
    "left_out": "prompts are marked, and no chain is made of them",
    "without_samples": "prompts have no continuation that is not empty",
}


def make_mask_step(given: dict[str, Any], device: str) -> Step:
    """Returns the step that masks prompts.

    Args:
        given: options by their names.
        device: of the model.
    """
    from lmcore.detox import MaskStep, load_span_finder

    names = ("threshold", "window", "overlap", "batch_tokens", "precision")
    finder = load_span_finder(
        given["spans"], device=device, **{name: given[name] for name in names}
    )
    above = None if given["every"] else given["prompt_threshold"]
    return MaskStep(finder=finder, form=given["form"], prompt_threshold=above)


def make_fill_step(given: dict[str, Any], scorer: Scorer | None, device: str) -> Step:
    """Returns the step that fills masks.

    Args:
        given: options by their names.
        scorer: of texts.
        device: of models.
    """
    from lmcore.detox import FillSampling, FillStep, RephraseRule, load_filler, load_similarity

    assert scorer is not None
    names = ("batch_size", "top_p", "temperature")
    sampling = FillSampling(**{name: given[name] for name in names})
    rule = RephraseRule(
        attempts=given["attempts"], threshold=given["clean_threshold"],
        least_similarity=given["least_similarity"],
    )  # fmt: skip
    filler = load_filler(check_folder(given["filler"]), sampling, device=device)
    more: dict[str, Any] = {"rule": rule, "seed": given["seed"]}
    if given["similarity"] is not None:
        more["similarity"] = load_similarity(given["similarity"], device=device)
    return FillStep(filler=filler, scorer=scorer, **more)


def make_continue_step(given: dict[str, Any], device: str) -> Step:
    """Returns the step that continues texts.

    Args:
        given: options by their names.
        device: of the model.
    """
    from lmcore.detox import ContinuationSampling, ContinueStep, load_continuer

    names = ("samples", "max_new_tokens", "batch_size", "top_p", "temperature")
    sampling = ContinuationSampling(**{name: given[name] for name in names})
    continuer = load_continuer(check_folder(given["model"]), sampling, device=device)
    return ContinueStep(continuer=continuer, seed=given["seed"])


def check_folder(name: str) -> str:
    """Returns the name of a folder.

    Args:
        name: of the folder; a name of the hub would be asked for there.

    Raises:
        ValueError: there is no such folder.

    Example:
        >>> check_folder("nowhere")
        Traceback (most recent call last):
        ValueError: nowhere: no such folder of a model
    """
    from pathlib import Path

    if not Path(name).is_dir():
        raise ValueError(f"{name}: no such folder of a model")
    return name


def apply_steps(
    make: Callable[[dict[str, Any], Scorer | None, str], Sequence[Step]], given: dict[str, Any]
) -> None:
    """Runs steps over a file, and says what they did on standard error.

    Args:
        make: the steps, of the options, the scorer, if there is one, and the device of models.
        given: options by their names.
    """
    with starting():
        from tqdm import tqdm

        from lmcore._files import find_output
        from lmcore.detox import run_steps
        from lmcore.detox.data import find_form
        from lmcore.training.processes import use_threads

    source, target, device = given["source"], given["target"], given["device"]
    find_form(source, given["data_format"])
    if target != "-":
        find_output(target, [] if source == "-" else [source])
    rows = {name: given[name] for name in ("field", "skip_bad_rows", "resume")}
    with use_threads(limit_threads(given.get("threads"))):
        scorer = _open_scorer(given)
        steps = make(given, scorer, "auto" if device is None else device)
        with tqdm(unit=" rows", disable=True if given["quiet"] else None, leave=False) as bar:
            done = run_steps(
                steps, source, target, form=given["data_format"], progress=bar.update, **rows
            )
    say_windows(scorer)
    _say_summary(done)


def _open_scorer(given: dict[str, Any]) -> Scorer | None:
    names = ("label", "checkpoint", "unpickle", "cache")
    if given.get("scorer") is not None:
        options = {name: given[name] for name in (*names, "device", "batch_size")}
        return open_scorer(given["scorer"], **options)
    if any(given.get(name) for name in names):
        raise ValueError("options of a scorer need --scorer")
    return None


def check_scorer_device(device: str | None, scorer: str | None) -> None:
    """Checks that a device which is asked for has a scorer to run, where there is no other model.

    Args:
        device: as it was given.
        scorer: as it was given.

    Raises:
        ValueError: the scorer is no model.

    Example:
        >>> check_scorer_device(None, None)
    """
    with starting():
        import lmcore.detox  # noqa: F401

    check_device(device, scorer)


def _say_summary(done: PipelineSummary) -> None:
    for row in done.listed_bad_rows:
        say(f"skipped {row}")
    before = f", {done.resumed_rows} of them before" if done.resumed_rows else ""
    say(f"{done.rows} rows{before}, {done.bad_rows} skipped")
    for name, text in _TEXTS.items():
        if done.counts.get(name):
            say(f"{done.counts[name]} {text}")
