"""Questions as a model reads them: the authors' prompts, by suite and by how answers are chosen.

Answers are chosen by letter, where the options stand in the prompt with their letters and the
model's next token decides, or by loss, where each option is a continuation and the likeliest one
counts. Each has prompts of its own.

Source: OpenBA (arXiv 2309.10706) and OpenBA-V2 (arXiv 2405.05957), the released evaluation;
specification section 8. The prompts are the authors', misspellings included: scores depend on
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lmcore.openba.questions import LETTERS, Question
from lmcore.openba.subjects import name_subject

BY = ("letter", "loss")
"""How an answer is chosen."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Prompt:
    """How a question and its demonstrations become one text."""

    ask: str
    """With `{question}`, and perhaps `{options}` and `{subject}`."""
    option: str
    """With `{text}`, and perhaps `{letter}`."""
    before_answer: str = ""
    """What stands between a demonstration and its answer."""
    behind_answer: str = "\n "
    first: str = ""
    """What stands before the first demonstration."""
    last: str = ""
    """What stands before the question, behind demonstrations."""
    alone: str | None = None
    """`ask` of a question without demonstrations, where it is another."""
    answer_start: str = ""
    """What an answer begins with: behind demonstrations it is shown, and the decoder is given it
    before the question's own."""


_LETTERED = Prompt(ask="Question: {question} Options: {options} Answer:", option="{letter}. {text}")
_SHOWN = {
    "first": "Fisrt, l will give you some examples. You need to answer the last question. "
    "Examples:",
    "last": "Please answer the following question. ",
}
_DASHED = Prompt(
    ask="Question: {question} OPTIONS: {options} Answer: ",
    option="- {text}",
    before_answer=" ",
    behind_answer=" ",
    alone="Question: {question} OPTIONS: {options} Choose one of the options as an answer to the "
    "question.",
    **_SHOWN,
)
_CHINESE_ASK = (
    "以下是关于({subject})的单项选择题，请直接给出正确答案的选项。题目：{question} {options} "
)
_CHINESE = Prompt(ask=_CHINESE_ASK, option="{letter}. {text}", answer_start="答案是：")
_CHINESE_V2 = replace(_CHINESE, ask=_CHINESE_ASK + "答案是：", answer_start="")
_CHINESE_DASHED = Prompt(
    ask="题目：{question} 选项：{options} 答案是：",
    option="- {text}",
    before_answer=" ",
    behind_answer=" ",
)
_SECOND = Prompt(
    ask="Question: {question} Options: {options} Answer:",
    option="{letter}: {text}",
    behind_answer=" \n ",
    first=f"{_SHOWN['first']} ",
    last=_SHOWN["last"],
    alone="Please answer the following multiple choice question: \n\n Question: {question} "
    "Options: {options} Answer:",
)
_ARC = replace(
    _LETTERED,
    ask="Utilize science knowledge to respond to the following grade-school level, "
    "multiple-choice science questions. Choose the correct answer based on understanding of "
    "real-world scientific principles.Question: {question} Options: {options} Answer: ",
)
_PIQA = Prompt(
    ask="Please answer the following multiple choice question based on physical commonsense "
    "knowledge\n\nQuestion: {question} Options: {options} Answer: (",
    option="({letter}) {text}",
    behind_answer=") \n",
)
_PIQA_LOSS = Prompt(
    ask="Question: {question} Answer: ", option="", before_answer=" ", behind_answer=" "
)

PROMPTS: dict[str, dict[str, Prompt]] = {
    "mmlu": {"letter": _LETTERED, "loss": _DASHED},
    "mmlu-v2": {"letter": _SECOND, "loss": _DASHED},
    "cmmlu": {"letter": _CHINESE, "loss": _CHINESE_DASHED},
    "ceval": {"letter": _CHINESE_V2, "loss": _CHINESE_DASHED},
    "arc": {"letter": _ARC, "loss": _DASHED},
    "piqa": {"letter": _PIQA, "loss": _PIQA_LOSS},
}
"""The authors' prompts by name; `mmlu` and `cmmlu` are those of OpenBA, the others of OpenBA-V2."""


def find_prompt_name(task: str, name: str | None = None) -> str:
    """Returns whose prompts a task has: its own, or MMLU's where none were released.

    Args:
        task: one of `lmcore.openba.questions.TASKS`.
        name: one of `PROMPTS`, in place of the task's.

    Raises:
        ValueError: there are no such prompts.

    Example:
        >>> find_prompt_name("piqa"), find_prompt_name("belebele")
        ('piqa', 'mmlu')
        >>> find_prompt_name("cmmlu", "ceval")
        'ceval'
    """
    if name is not None and name not in PROMPTS:
        raise ValueError(f"prompts must be one of {', '.join(PROMPTS)}: got {name!r:.60}")
    return name or (task if task in PROMPTS else "mmlu")


def make_source(
    question: Question, prompt: Prompt, demos: Sequence[Question] = (), *, suite: str = ""
) -> str:
    r"""Returns what the model reads of a question behind its demonstrations, without the frame.

    Args:
        question: that is asked.
        prompt: one of `PROMPTS`.
        demos: shown before, with their answers.
        suite: whose names subjects have, such as `ceval`.

    Example:
        >>> parts = {"subject": "", "key": "", "place": "", "options": ("4", "5")}
        >>> two = Question(text="2 + 2?", answer=0, **parts)
        >>> three = Question(text="2 + 3?", answer=1, **parts)
        >>> make_source(three, PROMPTS["mmlu"]["letter"], [two])
        'Question: 2 + 2? Options: A. 4 B. 5 Answer:A\n Question: 2 + 3? Options: A. 4 B. 5 Answer:'
    """
    if not demos and prompt.alone is not None:
        return _ask(question, prompt.alone, prompt, suite)
    parts = [prompt.first] if demos else []
    for demo in demos:
        assert demo.answer is not None
        is_lettered = "{letter}" in prompt.option
        answer = LETTERS[demo.answer] if is_lettered else demo.options[demo.answer]
        ask = _ask(demo, prompt.ask, prompt, suite)
        parts.append(
            f"{ask}{prompt.before_answer}{prompt.answer_start}{answer}{prompt.behind_answer}"
        )
    if demos:
        parts.append(prompt.last)
    return "".join(parts) + _ask(question, prompt.ask, prompt, suite)


def _ask(question: Question, ask: str, prompt: Prompt, suite: str) -> str:
    options = " ".join(
        prompt.option.replace("{letter}", letter).replace("{text}", text)
        for letter, text in zip(LETTERS, question.options, strict=False)
    )
    values = {
        "{subject}": name_subject(suite, question.subject), "{question}": question.text,
        "{options}": options,
    }  # fmt: skip
    # In one pass: braces in a question stand for themselves.
    before, parts = ask, []
    while before:
        places = {name: before.find(name) for name in values if name in before}
        if not places:
            parts.append(before)
            break
        name = min(places, key=lambda name: places[name])
        parts += [before[: places[name]], values[name]]
        before = before[places[name] + len(name) :]
    return "".join(parts)
