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


def make_fill_step(
    folders: dict[str, Any], scorer: Scorer, settings: dict[str, Any], device: str
) -> Step:
    """Returns the step that fills masks.

    Args:
        folders: `filler`, and `similarity` or None.
        scorer: of texts.
        settings: of its rule and of sampling.
        device: of models.
    """
    from lmcore.detox import FillSampling, FillStep, RephraseRule, load_filler, load_similarity

    names = ("batch_size", "top_p", "temperature")
    sampling = FillSampling(**{name: settings[name] for name in names})
    names = ("attempts", "threshold", "least_similarity")
    rule = RephraseRule(**{name: settings[name] for name in names})
    filler = load_filler(check_folder(folders["filler"]), sampling, device=device)
    more: dict[str, Any] = {"rule": rule, "seed": settings["seed"]}
    if folders["similarity"] is not None:
        more["similarity"] = load_similarity(folders["similarity"], device=device)
    return FillStep(filler=filler, scorer=scorer, **more)


def make_continue_step(folder: str, settings: dict[str, Any], device: str) -> Step:
    """Returns the step that continues texts.

    Args:
        folder: of the language model.
        settings: of sampling, and `seed`.
        device: of the model.
    """
    from lmcore.detox import ContinuationSampling, ContinueStep, load_continuer

    names = ("samples", "max_new_tokens", "batch_size", "top_p", "temperature")
    sampling = ContinuationSampling(**{name: settings[name] for name in names})
    continuer = load_continuer(check_folder(folder), sampling, device=device)
    return ContinueStep(continuer=continuer, seed=settings["seed"])


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


def run_command(
    make: Callable[[str, Scorer | None], Sequence[Step]],
    files: tuple[str, str],
    rows: dict[str, Any],
    scorer: dict[str, Any] | None = None,
    *,
    device: str | None = None,
    threads: int | None = None,
    quiet: bool = False,
) -> None:
    """Runs steps over a file, and says what they did on standard error.

    Args:
        make: the steps, of the device of models and the scorer.
        files: input and output.
        rows: options of `run_steps`.
        scorer: `name` and options of `open_scorer`, if there is one.
        device: of models; the best one by default.
        threads: of torch.
        quiet: whether there is no bar.
    """
    with starting():
        from tqdm import tqdm

        from lmcore._files import find_output
        from lmcore.detox import run_steps
        from lmcore.detox.data import find_form
        from lmcore.training.processes import use_threads

    source, target = files
    find_form(source, rows["form"])
    if target != "-":
        find_output(target, [] if source == "-" else [source])
    with use_threads(limit_threads(threads)):
        judge = None if scorer is None else open_scorer(**scorer, device=device)
        steps = make("auto" if device is None else device, judge)
        with tqdm(unit=" rows", disable=True if quiet else None, leave=False) as bar:
            done = run_steps(steps, source, target, progress=bar.update, **rows)
    say_windows(judge)
    _say_summary(done)


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
