"""The arms of GNER's preliminary study on real sentences: some domains are learned, one is asked.

    python arms_ner.py DATA --heldout politics --model DIR --set optimizer.lr=5e-5

DATA holds `crossner/<domain>` and `mit/<domain>`, each with `train.txt` and `test.txt`. The other
four domains of CrossNER and both of MIT are trained on; the test sentences of the domain that is
held out are labelled, freely and constrained. An arm's targets hold the entities alone (0), words
around them (1, ...), or all words (`all`); all arms start from the same weights, see the same
sentences and make the same number of steps.

With `--model` the weights are those of a folder, such as one of Flan-T5. Without, a small model of
random weights learns to copy the sentences first, once per seed, since a model that has read
nothing copies nothing. One line per seed and arm goes to `results/arms_ner_<heldout>.jsonl`, with
all settings; arms that stand there already are left out. `--table` prints what stands there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmcore.ner import (
    ExampleConfig,
    Generation,
    SampleConfig,
    Sentence,
    build_examples,
    predict,
    read_sentences,
    score,
    train,
)
from lmcore.ner.models import load_model, load_tokenizer
from lmcore.ner.recipes import TrainConfig, tiny
from lmcore.ner.sampling import Sampler
from lmcore.training.config import change

RESULTS = Path(__file__).resolve().parent / "results"
DOMAINS = ("ai", "literature", "music", "politics", "science")
MIT = ("movie", "restaurant")
# Short, since a small model on a CPU pays for each token of it; `--literal` takes the authors'.
TEMPLATE = "types {types} sentence {sentence}"


def main() -> None:
    """Trains the arms that are missing, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", default=os.environ.get("LMCORE_DATA", "") + "/ner")
    parser.add_argument("--heldout", choices=DOMAINS, default="politics")
    parser.add_argument("--model", help="folder of weights to start from")
    parser.add_argument("--arms", default="0,1,all")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--cap", type=int, default=10_000, help="sentences of a training domain")
    parser.add_argument("--tests", type=int, default=1_000_000, help="sentences that are asked")
    parser.add_argument("--max-words", type=int, help="cut longer training sentences")
    parser.add_argument("--copying-steps", type=int, default=2_000)
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--literal", action="store_true", help="the authors' instruction")
    parser.add_argument("--set", action="append", default=[], help="a setting of the recipe")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    results = RESULTS / f"arms_ner_{arguments.heldout}.jsonl"
    if arguments.table:
        print(format_table(read_lines(results)))
        return
    for seed in map(int, arguments.seeds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            run_seed(arguments, seed, Path(folder), results)
    print(format_table(read_lines(results)))


def run_seed(arguments: argparse.Namespace, seed: int, folder: Path, results: Path) -> None:
    """Trains and scores the arms of one seed."""
    sentences = list(read_training(arguments, seed))
    tests = read_tests(arguments)
    base = make_config(arguments, seed)
    model = arguments.model
    arms = [arm if arm == "all" else int(arm) for arm in arguments.arms.split(",")]
    if not missing(arms, seed, results):
        return
    if model is None:
        rows = [
            {"instruction": row["instruction"], "target": " ".join(row["words"])}
            for row in write_rows(arguments, sentences, "all", seed)
        ]
        train(change(base, {"loop.steps": arguments.copying_steps}), rows, folder / "copy")
        model = folder / "copy" / "best"
    for arm in missing(arms, seed, results):
        start = time.perf_counter()
        out = folder / f"arm_{arm}"
        rows = list(write_rows(arguments, sentences, arm, seed))
        result = train(change(base, {"loop.steps": arguments.steps}), rows, out, model=model)
        line: dict[str, Any] = {
            "arm": arm, "seed": seed, "heldout": arguments.heldout, "model": arguments.model,
            "sentences": len(sentences), "tests": len(tests), "steps": result.steps,
            "loss": result.history[-1].get("loss"),
        }  # fmt: skip
        for name, is_constrained in (("free", False), ("constrained", True)):
            line[name] = label(arguments, out / "best", tests, constrained=is_constrained)
        line["copying_steps"] = 0 if arguments.model else arguments.copying_steps
        line["seconds"] = round(time.perf_counter() - start)
        line["settings"] = arguments.set
        with open(results, "a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), file=sys.stderr, flush=True)


def read_training(arguments: argparse.Namespace, seed: int) -> Iterator[Sentence]:
    """The sentences of the domains that are trained on."""
    names = [f"crossner/{name}" for name in DOMAINS if name != arguments.heldout]
    sampler = Sampler(SampleConfig(cap=arguments.cap, over_sample=True, seed=seed))
    for name in [*names, *(f"mit/{name}" for name in MIT)]:
        path = Path(arguments.data, name, "train.txt")
        yield from sampler.sample(read_sentences(path, dataset=name))


def read_tests(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The sentences of the domain that is held out, with instructions, as rows."""
    reader = read_sentences(Path(arguments.data, "crossner", arguments.heldout, "test.txt"))
    config = ExampleConfig(template=template(arguments), shuffle_types=False)
    rows = [example.to_row() for example in build_examples(reader, config)]
    return rows[: arguments.tests]


def write_rows(
    arguments: argparse.Namespace, sentences: Sequence[Sentence], context: Any, seed: int
) -> Iterator[dict[str, Any]]:
    """Rows of training, whose types are in an order of their own."""
    config = ExampleConfig(
        context=context, seed=seed, template=template(arguments), max_words=arguments.max_words
    )
    for example in build_examples(sentences, config):
        # A target of no words teaches to say nothing, which is what the paper's entities-only
        # arm has, too.
        yield example.to_row()


def template(arguments: argparse.Namespace) -> str | None:
    """The wording; None is the authors'."""
    return None if arguments.literal else TEMPLATE


def make_config(arguments: argparse.Namespace, seed: int) -> TrainConfig:
    """The settings that copying and all arms share."""
    changes: dict[str, Any] = {"loop.seed": seed, "schedule.kind": "constant"}
    for setting in arguments.set:
        name, _, text = setting.partition("=")
        changes[name] = json.loads(text) if text[:1] in "0123456789-[tfn" else text
    return change(tiny(), changes)


def label(
    arguments: argparse.Namespace, folder: Path, tests: list[dict[str, Any]], *, constrained: bool
) -> dict[str, float]:
    """F1 and the shares of missed entities by kind, in percent."""
    generation = Generation(batch_size=32, constrained=constrained, max_new_tokens=400)
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    (found,) = score(predict(model, tokenizer, tests, generation=generation)).datasets.values()
    errors = found.errors
    gold = max(errors.gold, 1)
    return {
        "f1": 100 * found.quality.f1,
        "unlabelled": 100 * errors.unlabelled / gold,
        "noisy": 100 * errors.noisy / gold,
        "boundary": 100 * errors.boundary / gold,
    }


def missing(arms: Sequence[Any], seed: int, results: Path) -> list[Any]:
    """The arms of a seed that have no line."""
    known = {(line["arm"], line["seed"]) for line in read_lines(results)}
    return [arm for arm in arms if (arm, seed) not in known]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What stands in the results."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def format_table(lines: Sequence[dict[str, Any]]) -> str:
    """F1 and kinds of errors of each arm: mean and sample standard deviation over seeds."""
    table = ["| target holds | decoding | F1 | unlabelled | wrong type | wrong boundary | seeds |"]
    table.append("| --- | --- | --- | --- | --- | --- | --- |")
    for arm in dict.fromkeys(line["arm"] for line in lines):
        for decoding in ("free", "constrained"):
            found = [line[decoding] for line in lines if line["arm"] == arm]
            cells = [
                spread([row[name] for row in found])
                for name in ("f1", "unlabelled", "noisy", "boundary")
            ]
            table.append(f"| {arm} | {decoding} | {' | '.join(cells)} | {len(found)} |")
    return "\n".join(table)


def spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"


if __name__ == "__main__":
    main()
