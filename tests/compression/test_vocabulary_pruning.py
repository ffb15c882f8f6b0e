"""Models of many families with fewer tokens: what is kept, what is proved, what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lmcore.compression import Counts, Proof, TokenizerFolder, VocabularySummary, prune_vocabulary
from lmcore.compression.backends import hash_tokenizer
from lmcore.compression.pieces.folder import load_tokenizer
from lmcore.compression.record import read_record
from lmcore.openba import OpenBAForConditionalGeneration, OpenBATokenizer
from tiny_vocabularies import FAMILIES, count_lines, read_lines, save_model, write_lines

NAMES = [*FAMILIES, "openba"]


class World:
    """A folder of each family, made when it is asked for first, and what was pruned of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.text = write_lines(folder / "text.txt", [*read_lines(), "zz 東 qq"])
        self._models: dict[str, Any] = {}
        self._summaries: dict[str, VocabularySummary] = {}

    def model(self, name: str) -> Any:
        if name not in self._models:
            (self.folder / name).mkdir()
            self._models[name] = save_model(name, self.folder / name)
        return self._models[name]

    def path(self, name: str) -> Path:
        self.model(name)
        return self.folder / name

    def counts(self, name: str) -> Counts:
        return count_lines(self.path(name), read_lines())

    def keep(self, name: str) -> int:
        """How many tokens stay: what must, and half of those beside that occur."""
        table = TokenizerFolder(self.path(name)).table
        seen = np.flatnonzero(self.counts(name).total)
        least = {*table.find_required().tolist(), *table.find_characters(seen.tolist()).tolist()}
        return len(least) + len({*seen.tolist()} - least) // 2

    def pruned(self, name: str) -> tuple[Path, VocabularySummary]:
        target = self.folder / f"{name}-new"
        if name not in self._summaries:
            self._summaries[name] = prune_vocabulary(
                self.path(name), target, self.counts(name), self.keep(name), multiple=8,
                prove=[self.text],
            )  # fmt: skip
        return target, self._summaries[name]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("vocabularies"))


def load(name: str, folder: Path) -> Any:
    kind = OpenBAForConditionalGeneration if name == "openba" else None
    kind = kind or getattr(transformers, FAMILIES[name][1])
    model, found = kind.from_pretrained(folder, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert not found["mismatched_keys"]
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
def test_pruned_models_load_and_are_proved(world: World, name: str) -> None:
    """Rows by the definition, here and not by the cuts: every tensor whose size is that of V."""
    target, summary = world.pruned(name)
    old, new = world.model(name).state_dict(), load(name, target).state_dict()
    ids = read_record(target).vocabulary_ids
    assert ids is not None
    tokens = len(TokenizerFolder(world.path(name)).table)
    rows = summary.rows_before
    kept = torch.from_numpy(np.where(ids < 0, tokens, ids))  # the first row behind the tokens
    assert old.keys() == new.keys()
    cut = 0
    for key, tensor in old.items():
        expected = tensor
        if tensor.ndim and tensor.shape[0] == rows:
            expected = tensor[kept]
        elif tensor.ndim == 2 and tensor.shape == (1, rows):
            expected = tensor[:, kept]
        cut += expected is not tensor
        assert torch.equal(new[key], expected), key
    assert cut >= 2
    assert (summary.rows, summary.rows % 8) == (len(ids), 0)
    assert summary.tokens == (ids >= 0).sum() == world.keep(name)
    proof = summary.proof
    assert proof is not None
    assert (proof.passed, proof.failures) == (True, [])
    assert 0 < proof.surviving_lines < proof.lines == len(read_lines()) + 1
    assert proof.rise > 0
    assert proof.logits > 0
    assert proof.tensors >= len({key for key in old if "embed_tokens" not in key}) - 3


@pytest.mark.parametrize("name", NAMES)
def test_logits_of_kept_tokens(world: World, name: str) -> None:
    """With whole numbers in the output layer and before it nothing is rounded: the bits agree."""
    target, _ = world.pruned(name)
    ids = read_record(target).vocabulary_ids
    assert ids is not None
    real = torch.from_numpy(np.flatnonzero(ids >= 0))
    old, new = world.model(name), load(name, target)
    heads = [model.get_output_embeddings() for model in (old, new)]
    hidden = torch.randint(-9, 9, (5, heads[0].weight.shape[1])).float()
    with torch.no_grad():
        rounded = [(head.weight * 64).round() for head in heads]
        first, second = (hidden @ weight.T for weight in rounded)
    assert torch.equal(first[:, ids[ids >= 0]], second[:, real])


def test_settings_get_new_ids(world: World) -> None:
    """Sentinels lie behind the pieces, so their ids change; GPT-2's file states no ids."""
    target, _ = world.pruned("openba")
    old, new = load_tokenizer(world.path("openba")), load_tokenizer(target)
    assert isinstance(new, OpenBATokenizer)
    assert new.sentinel_ids == [len(new) - 4 - number for number in range(100)]
    assert new.prefix_ids == {"<R>": len(new) - 3, "<S>": len(new) - 2, "<X>": len(new) - 1}
    assert len(new) < len(old)
    target, summary = world.pruned("mbart")
    config = json.loads((target / "config.json").read_text())
    assert config["vocab_size"] == summary.rows
    generation = json.loads((target / "generation_config.json").read_text())
    assert (config["forced_eos_token_id"], generation["forced_eos_token_id"]) == (2, 2)


def test_ids_that_move(world: World, tmp_path: Path) -> None:
    """An end that lies behind other tokens, stated, left out, and in lists."""
    shutil.copytree(world.path("gpt2"), tmp_path / "old")
    content = json.loads((tmp_path / "old/config.json").read_text())
    content |= {"eos_token_id": [0, 400], "pad_token_id": 502, "sep_token_id": 9999}
    del content["bos_token_id"]  # the class has 50256 then, which is no row
    (tmp_path / "old/config.json").write_text(json.dumps(content))
    generation = {"eos_token_id": 450, "bad_words_ids": [[400], [499, 498]], "max_length": 7}
    (tmp_path / "old/generation_config.json").write_text(json.dumps(generation))
    prune_vocabulary(tmp_path / "old", tmp_path / "new", world.counts("gpt2"), 280)
    ids = read_record(tmp_path / "new").vocabulary_ids.tolist()  # type: ignore[union-attr]
    config = json.loads((tmp_path / "new/config.json").read_text())
    assert config["eos_token_id"] == [0, ids.index(400)]
    # 502 is a row without a token: it stays, since it is named.
    assert config["pad_token_id"] == ids.index(502)
    assert (config["sep_token_id"], config["bos_token_id"]) == (None, None)
    generation = json.loads((tmp_path / "new/generation_config.json").read_text())
    expected = {"eos_token_id": ids.index(450), "bad_words_ids": [[ids.index(400)]]}
    assert generation == {**expected, "max_length": 7}
    assert len(ids) == 384  # of a multiple of 128


def test_a_folder_of_a_piece_file_alone(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.path("openba"), tmp_path / "old")
    (tmp_path / "old/tokenizer.json").unlink()
    options: dict[str, Any] = {"multiple": 8, "prove": [world.text]}
    keep, counts = world.keep("openba"), world.counts("openba")
    summary = prune_vocabulary(tmp_path / "old", tmp_path / "new", counts, keep, **options)
    assert summary.proof is not None
    assert summary.proof.failures == []
    assert not (tmp_path / "new/tokenizer.json").exists()
    other, _ = world.pruned("openba")
    assert (tmp_path / "new/spiece.model").read_bytes() == (other / "spiece.model").read_bytes()


@pytest.mark.parametrize(("name", "kind"), [("gpt2", "GPT2Tokenizer"), ("bert", "BertTokenizer")])
def test_folders_with_vocabularies_in_older_files(
    world: World, tmp_path: Path, name: str, kind: str
) -> None:
    """`vocab.json` and `merges.txt`, or `vocab.txt`; with `tokenizer.json` and without."""
    shutil.copytree(world.path(name), tmp_path / "old")
    model = json.loads((tmp_path / "old/tokenizer.json").read_text("utf-8"))["model"]
    if name == "gpt2":
        (tmp_path / "old/vocab.json").write_text(json.dumps(model["vocab"]))
        merges = "\n".join(["#version: 0.2", *map(" ".join, model["merges"])])
        (tmp_path / "old/merges.txt").write_text(merges + "\n", encoding="utf-8")
    else:
        texts = sorted(model["vocab"], key=model["vocab"].get)
        (tmp_path / "old/vocab.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    (tmp_path / "old/tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    written = []
    for target in ("with", "without"):
        summary = prune_vocabulary(
            tmp_path / "old", tmp_path / target, world.counts(name), world.keep(name),
            prove=[world.text], multiple=8, logits=False,
        )  # fmt: skip
        assert summary.proof is not None
        assert summary.proof.failures == []
        names = ("vocab.json", "merges.txt") if name == "gpt2" else ("vocab.txt",)
        written.append([(tmp_path / target / file).read_bytes() for file in names])
        (tmp_path / "old/tokenizer.json").unlink(missing_ok=True)
    assert written[0] == written[1]


def test_shards_and_old_files_of_weights(world: World, tmp_path: Path) -> None:
    model = world.model("bert")
    shutil.copytree(world.path("bert"), tmp_path / "old")
    (tmp_path / "old/model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "old/pytorch_model.bin")
    prune_vocabulary(
        tmp_path / "old", tmp_path / "new", world.counts("bert"), world.keep("bert"), multiple=8,
        max_shard_bytes=8_000, prove=[world.text],
    )  # fmt: skip
    assert len([*(tmp_path / "new").glob("model-*.safetensors")]) > 2
    other, _ = world.pruned("bert")
    for (key, first), second in zip(
        load("bert", tmp_path / "new").state_dict().items(),
        load("bert", other).state_dict().values(), strict=True,
    ):  # fmt: skip
        assert torch.equal(first, second), key


# What the proof finds.


def prove_damaged(world: World, tmp_path: Path, name: str, damage: Any) -> Proof:
    """The proof of a folder that is damaged before it is proved."""
    from lmcore.compression import vocabulary_pruning

    prove = vocabulary_pruning._Plan.prove

    def prove_later(plan: Any, folder: Path, *arguments: Any) -> Proof:
        damage(folder)
        return prove(plan, folder, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary_pruning._Plan, "prove", prove_later)
        summary = prune_vocabulary(
            world.path(name), tmp_path / "new", world.counts(name), world.keep(name), multiple=8,
            prove=[world.text],
        )  # fmt: skip
    assert summary.proof is not None
    assert read_record(tmp_path / "new").about["vocabulary"]["proof"]["passed"] is False
    return summary.proof


def test_the_proof_finds_a_changed_row(world: World, tmp_path: Path) -> None:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors["bert.embeddings.word_embeddings.weight"][9, 3] += 2**-10
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    proof = prove_damaged(world, tmp_path, "bert", damage)
    assert proof.failures[0].startswith("bert.embeddings.word_embeddings.weight: the rows from 0 ")


def test_the_proof_finds_other_logits(world: World, tmp_path: Path) -> None:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))

    proof = prove_damaged(world, tmp_path, "bert", damage)
    assert proof.failures[0].startswith("logits of line 1: they differ by ")
    assert proof.largest_difference > 1e-5


def test_the_proof_finds_another_tokenizer(world: World, tmp_path: Path) -> None:
    def damage(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        # Without its first merges, and with two tokens exchanged.
        content["model"]["merges"] = content["model"]["merges"][20:]
        vocabulary = content["model"]["vocab"]
        texts = [*vocabulary][-2:]
        vocabulary |= dict(zip(texts, (vocabulary[text] for text in texts[::-1]), strict=True))
        (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")

    proof = prove_damaged(world, tmp_path, "gpt2", damage)
    assert proof.failed > 2
    assert [text[:10] for text in proof.failures[:2]] == ["the token "] * 2
    assert any("text.txt:" in text and "expected the ids" in text for text in proof.failures)


def test_the_proof_finds_a_character_that_the_counts_had_not(world: World, tmp_path: Path) -> None:
    """What was counted lacks it, and so it is unknown now: the text shows it, with its line."""
    text = write_lines(tmp_path / "text", ["Ada met Otto.", "東京"])
    counts = count_lines(world.path("bert"), ["Ada met Otto."])
    summary = prune_vocabulary(
        world.path("bert"), tmp_path / "new", counts, 30, prove=[text], multiple=8
    )
    assert summary.proof is not None
    (failure,) = summary.proof.failures
    assert f"{text}:2: the text that the ids give back is another" in failure


# What is refused.


def refuse(world: World, tmp_path: Path, error: type[Exception], text: str, **change: Any) -> None:
    arguments: dict[str, Any] = {
        "source": world.path("bert"), "target": tmp_path / "new", "keep": world.keep("bert"),
        "counts": world.counts("bert"),
    }  # fmt: skip
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(error, match=text):
        prune_vocabulary(**{**arguments, **change})
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_is_refused(world: World, tmp_path: Path) -> None:
    """In one line, and before a byte is written."""
    rows = world.model("bert").config.vocab_size
    refuse(world, tmp_path, ValueError, r"^keep must be at least \d+: so many are special", keep=9)
    refuse(world, tmp_path, ValueError, r"^keep must be from 1 to \d+, ", keep=rows)
    longer = Counts(groups={"all": np.ones(rows + 1, np.int64)})
    refuse(world, tmp_path, ValueError, "the counts are of another vocabulary: ", counts=longer)
    whole = Counts(groups={"all": np.ones(rows, np.int64)})
    refuse(world, tmp_path, IndexError, "have the id 400, which no token has", counts=whole)
    groups = world.counts("bert").groups
    other = Counts(groups=groups, tokenizer="0" * 64)
    refuse(world, tmp_path, ValueError, r"the counts are of another tokenizer$", counts=other)
    digest = hash_tokenizer(world.path("bert"))
    prune_vocabulary(
        world.path("bert"), tmp_path / "same", Counts(groups=groups, tokenizer=digest), 200
    )
    refuse(world, tmp_path, FileExistsError, "exists already", target=tmp_path / "same")
    refuse(world, tmp_path, FileNotFoundError, "No such file", target=tmp_path / "no/new")
    refuse(world, tmp_path, ValueError, "multiple must be at least 1", multiple=0)
    refuse(world, tmp_path, ValueError, "the group 'fr': there are even, odd$", keep_per={"fr": 1})


def test_a_tokenizer_of_another_model(world: World, tmp_path: Path) -> None:
    for name in ("deberta", "llama"):
        shutil.copytree(world.path("bert"), tmp_path / name)
        source = world.path(name)
        shutil.copyfile(source / "tokenizer.json", tmp_path / name / "tokenizer.json")
    content = json.loads((tmp_path / "deberta/tokenizer.json").read_text("utf-8"))
    content["model"]["vocab"] = content["model"]["vocab"][:200]
    (tmp_path / "deberta/tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    for name in ("deberta", "llama"):
        refuse(world, tmp_path, ValueError, "the tokenizer does not belong to the embedding: ",
               source=tmp_path / name)  # fmt: skip


def test_ids_of_added_tokens_in_all_files(world: World, tmp_path: Path) -> None:
    """A token behind the pieces gets another id, in each file that older versions wrote."""
    shutil.copytree(world.path("bert"), tmp_path / "old")
    path = tmp_path / "old/tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    token = {**content["added_tokens"][-1], "id": 400, "content": "<new>"}
    content["added_tokens"].append(token)
    path.write_text(json.dumps(content), encoding="utf-8")
    settings = {"added_tokens_decoder": {"400": {"content": "<new>"}, "3": {"content": "[SEP]"}}}
    (tmp_path / "old/tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "old/added_tokens.json").write_text('{"<new>": 400}')
    (tmp_path / "old/special_tokens_map.json").write_text('{"sep_token": "[SEP]"}')
    prune_vocabulary(tmp_path / "old", tmp_path / "new", world.counts("bert"), world.keep("bert"))
    last = world.keep("bert") - 1
    found = [json.loads((tmp_path / "new" / name).read_text()) for name in
             ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")]  # fmt: skip
    expected = {str(last): {"content": "<new>"}, "3": {"content": "[SEP]"}}
    assert found == [
        {"added_tokens_decoder": expected}, {"<new>": last}, {"sep_token": "[SEP]"},
    ]  # fmt: skip


def test_an_id_that_two_files_say_otherwise(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.path("bert"), tmp_path / "old")
    added = {"added_tokens_decoder": {"7": {"content": "[SEP]", "special": True}}}
    (tmp_path / "old/tokenizer_config.json").write_text(json.dumps(added))
    refuse(world, tmp_path, ValueError, r"'\[SEP\]' has the id 7 there, and 3 in tokenizer.json$",
           source=tmp_path / "old")  # fmt: skip
    (tmp_path / "old/tokenizer_config.json").write_text('{"added_tokens_decoder": {"-7": {}}}')
    refuse(world, tmp_path, ValueError, "its added tokens have no ids", source=tmp_path / "old")


def test_weights_of_another_size(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.path("bert"), tmp_path / "old")
    content = json.loads((tmp_path / "old/config.json").read_text())
    content["vocab_size"] -= 1
    (tmp_path / "old/config.json").write_text(json.dumps(content))
    refuse(world, tmp_path, ValueError, "the configuration says that the vocabulary has",
           source=tmp_path / "old")  # fmt: skip


def test_a_run_that_ended_early_goes_on(world: World, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise StopError

    arguments = (world.path("bert"), tmp_path / "new", world.counts("bert"), world.keep("bert"))
    with pytest.raises(StopError):
        prune_vocabulary(*arguments, multiple=8, max_shard_bytes=8_000, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == [".new.lmcore-part"]
    done: list[int] = []
    prune_vocabulary(*arguments, multiple=8, max_shard_bytes=8_000,
                     progress=lambda now, total: done.append(now))  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert done[0] > 0
    prune_vocabulary(world.path("bert"), tmp_path / "other", *arguments[2:], multiple=8,
                     max_shard_bytes=8_000)  # fmt: skip
    for path in sorted((tmp_path / "other").iterdir()):
        assert (tmp_path / "new" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_proof_that_could_not_be_read_does_not_write_the_weights_again(
    world: World, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("{oops\n")
    source, keep = world.path("bert"), world.keep("bert")
    arguments: Any = (source, tmp_path / "new", world.counts("bert"))
    with pytest.raises(ValueError, match=r"texts\.jsonl:1: not valid JSON"):
        prune_vocabulary(*arguments, keep, prove=[texts])
    texts.write_text('{"text": "a"}\n')
    with pytest.raises(FileExistsError, match="made otherwise: start anew without resume"):
        prune_vocabulary(*arguments, keep + 1)
    done: list[int] = []
    progress = lambda now, total: done.append(now)  # noqa: E731
    summary = prune_vocabulary(*arguments, keep, prove=[texts], progress=progress)
    assert done == []
    assert summary.proof is not None
    assert summary.proof.passed
    assert summary.bytes == (tmp_path / "new/model.safetensors").stat().st_size
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {path.name for path in source.iterdir()} | {"pruning.json"}


def test_weights_of_a_run_that_was_killed_behind_them_are_not_trusted(
    world: World, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("{oops\n")
    arguments: Any = (world.path("bert"), tmp_path / "new", world.counts("bert"))
    with pytest.raises(ValueError, match="not valid JSON"):
        prune_vocabulary(*arguments, world.keep("bert"), prove=[texts])
    (tmp_path / ".new.lmcore-part/.lmcore-vocabulary.json").unlink()
    with pytest.raises(FileExistsError, match="became whole: start anew without resume"):
        prune_vocabulary(*arguments, world.keep("bert"))
    prune_vocabulary(*arguments, world.keep("bert"), resume=False)
    assert (tmp_path / "new/model.safetensors").is_file()


def test_a_run_with_other_numbers_does_not_go_on(world: World, tmp_path: Path) -> None:
    part = tmp_path / ".new.lmcore-part"

    def stop(done: int, total: int) -> None:
        raise InterruptedError

    source, keep = world.path("bert"), world.keep("bert")
    arguments: Any = (source, tmp_path / "new", world.counts("bert"))
    with pytest.raises(InterruptedError):
        prune_vocabulary(*arguments, keep, max_shard_bytes=8_000, progress=stop)
    (part / "of_another_model.txt").write_text("stale")
    with pytest.raises(FileExistsError, match="lmcore-part"):
        prune_vocabulary(*arguments, keep + 1)
    prune_vocabulary(*arguments, keep + 1, resume=False)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {path.name for path in source.iterdir()} | {"pruning.json"}


def test_two_processes_do_not_write_into_one_folder(world: World, tmp_path: Path) -> None:
    from lmcore._files import FolderLock

    part = tmp_path / ".new.lmcore-part"
    part.mkdir()
    lock = FolderLock(part, doing="writing a model", file=".lmcore-vocabulary.lock")
    arguments: Any = (world.path("bert"), tmp_path / "new", world.counts("bert"))
    with lock.hold(), pytest.raises(FileExistsError, match="another process is writing a model"):
        prune_vocabulary(*arguments, world.keep("bert"))
    assert not (tmp_path / "new").exists()
    prune_vocabulary(*arguments, world.keep("bert"))
    assert (tmp_path / "new").is_dir()
