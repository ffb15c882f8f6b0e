"""Constrained decoding: what is legal, token by token."""

import pytest
import torch
from transformers import LogitsProcessorList

from lmcore.ner.decoding import ConstrainedDecoding, ConstraintMaker
from lmcore.ner.instructions import write_instruction
from tiny_generators import (
    HOSTILE,
    SENTENCES,
    TYPES,
    generate,
    make_inputs,
    make_llama,
    make_prompts,
    make_t5,
    make_tokenizer,
)


@pytest.mark.parametrize("is_byte_level", [False, True])
@pytest.mark.parametrize("words", [*SENTENCES, *HOSTILE], ids=" ".join)
def test_every_legal_text_can_be_written(words: list[str], is_byte_level: bool) -> None:
    tokenizer = make_tokenizer(is_byte_level=is_byte_level)
    constraint = ConstraintMaker(tokenizer)(words, TYPES)
    labels = [["O", "B-city", "I-city", "B-person", "I-person"][i % 5] for i in range(len(words))]
    tokens: list[int] = []
    state = constraint.begin
    for label in labels:
        while state.node is None:
            tokens += constraint.allowed(state)
            [token] = constraint.allowed(state)
            after = constraint.advance(state, token)
            assert after is not None
            state = after
        for token in constraint.parts[state.word].labels.tokens[constraint.labels.index(label)]:
            assert token in constraint.allowed(state)
            tokens.append(token)
            after = constraint.advance(state, token)
            assert after is not None
            state = after
    assert constraint.allowed(state) == (tokenizer.eos_token_id,)
    read = constraint.read(tokens)
    assert [word.label for word in read] == labels
    assert len(tokens) <= constraint.most_tokens
    if is_byte_level:  # the other one does not know all characters
        text = " ".join(f"{w}({label})" for w, label in zip(words, labels, strict=True))
        assert tokenizer.decode(tokens, skip_special_tokens=False) == text


def test_words_have_the_tokens_of_their_context() -> None:
    """The whole text, cut by the tokenizer at once, is a legal one."""
    for is_byte_level in (False, True):
        tokenizer = make_tokenizer(is_byte_level=is_byte_level)
        for words in SENTENCES:
            constraint = ConstraintMaker(tokenizer)(words, TYPES)
            text = " ".join(f"{word}(B-musical artist)" for word in words)
            tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
            labels = [word.label for word in constraint.read(tokens)]
            assert labels == ["B-musical artist"] * len(words)


def test_inside_follows_its_own_type_alone() -> None:
    constraint = ConstraintMaker(make_tokenizer())(["a", "b"], TYPES)
    for label in constraint.labels:
        tree = constraint.parts[1].labels.tree(constraint.labels.index(label))
        ends = set()
        stack = [tree]
        while stack:
            node = stack.pop()
            stack += node.children.values()
            if node.label is not None:
                ends.add(constraint.labels[node.label])
        inside = set() if label == "O" else {f"I-{label[2:]}"}
        assert ends == {"O", *(f"B-{kind}" for kind in TYPES)} | inside


def test_a_bracket_may_belong_to_what_follows() -> None:
    """Where `(O` is one token, labels are asked for behind each word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = Tokenizer(models.BPE(
        {"<pad>": 0, "</s>": 1, "a": 2, "(": 3, "O": 4, ")": 5, "B": 6, "-": 7, "x": 8, "I": 9,
         "(O": 10, " ": 11, ".": 12, ".(": 13},
        [("(", "O"), (".", "(")],
    ))  # fmt: skip
    known.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=known, pad_token="<pad>", eos_token="</s>")
    constraint = ConstraintMaker(tokenizer)(["a", "."], ["x"])
    tokens = tokenizer("a(O) .(O)", add_special_tokens=False)["input_ids"]
    assert tokens == [2, 10, 5, 11, 12, 10, 5]
    assert constraint.allowed(constraint.follow([2])) == (3, 10)
    assert [word.label for word in constraint.read(tokens)] == ["O", "O"]
    outside = [2, 3, 6, 7, 8, 5, 11]
    assert constraint.allowed(constraint.follow(outside)) == (12, 13)


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_generate_copies_words_and_writes_legal_labels(kind: str, num_beams: int) -> None:
    sentences = [*SENTENCES, *HOSTILE]
    tokenizer = make_tokenizer(is_byte_level=kind == "llama")
    maker = ConstraintMaker(tokenizer)
    if kind == "t5":
        model = make_t5(tokenizer)
        constraints = [maker(words, TYPES) for words in sentences]
        inputs = make_inputs(tokenizer, sentences)
    else:
        model = make_llama(tokenizer)
        prompts = [f"[INST] {write_instruction(words, TYPES)} [/INST] " for words in sentences]
        constraints = [
            maker(words, TYPES, prompt) for words, prompt in zip(sentences, prompts, strict=True)
        ]
        inputs = make_prompts(constraints)
    for constraint, tokens in zip(
        constraints, generate(model, constraints, inputs, num_beams), strict=True
    ):
        labels = [word.label for word in constraint.read(tokens)]
        assert len(labels) == len(constraint.words)
        for before, label in zip(["O", *labels], labels, strict=False):
            assert label[:2] != "I-" or before[2:] == label[2:]


def test_beams_find_no_worse_labels_than_the_greedy_search() -> None:
    tokenizer = make_tokenizer()
    model = make_t5(tokenizer, seed=0)
    maker = ConstraintMaker(tokenizer)
    constraints = [maker(words, TYPES) for words in SENTENCES]
    inputs = make_inputs(tokenizer, SENTENCES)

    def rate(rows: list[list[int]]) -> list[float]:
        rates = []
        for row, (constraint, tokens) in enumerate(zip(constraints, rows, strict=True)):
            end = tokens.index(tokenizer.eos_token_id) + 1
            target = torch.tensor([tokens[:end]])
            with torch.no_grad():
                logits = model(
                    input_ids=inputs["input_ids"][row : row + 1],
                    attention_mask=inputs["attention_mask"][row : row + 1],
                    labels=target,
                ).logits[0]
            state, total = constraint.begin, 0.0
            for place, token in enumerate(tokens[:end]):
                allowed = list(constraint.allowed(state))
                total += float(logits[place, allowed].log_softmax(0)[allowed.index(token)])
                after = constraint.advance(state, token)
                assert after is not None
                state = after
            # Beams are compared by the mean over the tokens.
            rates.append(total / end)
        return rates

    greedy, best = (rate(generate(model, constraints, inputs, count)) for count in (1, 4))
    pairs = list(zip(best, greedy, strict=True))
    assert all(a >= b - 1e-9 for a, b in pairs)
    assert any(a > b + 1e-9 for a, b in pairs)


def test_no_legal_token_raises() -> None:
    tokenizer = make_tokenizer()
    model = make_t5(tokenizer)
    constraints = [ConstraintMaker(tokenizer)(["Ada"], TYPES)]
    inputs = make_inputs(tokenizer, [["Ada"]])
    first = constraints[0].allowed(constraints[0].begin)[0]
    with pytest.raises(ValueError, match="sentence 0 has no legal token left: another processor"):
        model.generate(
            **inputs, max_new_tokens=9, do_sample=False, suppress_tokens=[first],
            logits_processor=LogitsProcessorList([
                lambda ids, scores: scores.index_fill(1, torch.tensor([first]), -torch.inf),
                ConstrainedDecoding(constraints, prompt_length=1),
            ]),
        )  # fmt: skip
    processor = ConstrainedDecoding(constraints, prompt_length=1)
    with pytest.raises(ValueError, match="the 1 tokens before are not those of its words"):
        processor(torch.tensor([[0, first + 1]]), torch.zeros(1, len(tokenizer)))
    with pytest.raises(ValueError, match=r"the model has 3 tokens: got token \d+ of a tokenizer"):
        processor(torch.tensor([[0]]), torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("types", "problem"),
    [
        ([], "at least one entity type"),
        (["a", "a"], "types name 'a' twice"),
        (["a", ""], "type ''"),
        (["a)"], "holds a closing parenthesis"),
        (["東", "京"], "'B-東' and 'B-京' are the same tokens"),
    ],
)
def test_types_that_cannot_be_told_apart(types: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ConstraintMaker(make_tokenizer())(["Ada"], types)
    with pytest.raises(TypeError, match="must be a sequence of str"):
        ConstraintMaker(make_tokenizer())(["Ada"], "city")


def test_a_sentence_without_words_ends_at_once() -> None:
    constraint = ConstraintMaker(make_tokenizer())([], TYPES)
    assert constraint.allowed(constraint.begin) == (1,)
    assert constraint.read([1]) == []
    assert constraint.most_tokens == 1


def test_a_text_that_is_not_legal_is_named() -> None:
    constraint = ConstraintMaker(make_tokenizer())(["Ada", "ran"], TYPES)
    with pytest.raises(ValueError, match=r"token 0 must be one of \(\d+,\): got 2"):
        constraint.read([2])
    with pytest.raises(ValueError, match="token 0 must be one of"):
        constraint.follow([2])
    with pytest.raises(ValueError, match="expected labels of 2 words: got 0"):
        constraint.read([])
