"""The four formats that OpenBA was fine-tuned in: chat, code, instruction generation and tools.

Each is a pair of texts. `<S>` and `<extra_id_0>` are put around a source when samples are made.
Source: OpenBA (arXiv 2309.10706), OpenBA-X; specification section 7.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lmcore.openba.templates import check_language

#: What asks for an instruction. The English wording is the paper's; of the Chinese one it says
#: that there is one, and this one is ours.
GENERATION_SOURCES = {
    "en": "Please generate the instruction according to the text I provide: {answer}.",
    "zh": "请根据我提供的文本生成指令：{answer}。",
}
#: The tool of the paper.
TOOL = "WikiSearch"

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U000323af]")
_WORD = re.compile("[A-Za-z]+")


class Pair(NamedTuple):
    """What a model reads, and what it shall write."""

    source: str
    target: str


def format_chat(
    turns: Sequence[tuple[str, str]], *, max_turns: int | None = None
) -> Iterator[Pair]:
    """Yields a pair for each turn of a dialogue, with all that was said before it.

    The prompt of turn t is `Human: {H0} Assistant: {A0} ... Human: {Ht} Assistant:`.

    Args:
        turns: questions with their answers.
        max_turns: most turns of a source, with its own; the first ones are left out. None keeps
            all of them.

    Raises:
        ValueError: there are no turns, or one is empty.

    Example:
        >>> for pair in format_chat([("Hi.", "Hello."), ("Who?", "Ada.")]):
        ...     print(pair)
        Pair(source='Human: Hi. Assistant:', target='Hello.')
        Pair(source='Human: Hi. Assistant: Hello. Human: Who? Assistant:', target='Ada.')
    """
    if not turns:
        raise ValueError("a dialogue must have at least one turn: got none")
    if max_turns is not None and max_turns < 1:
        raise ValueError(f"max_turns must be at least 1, or None: got {max_turns}")
    questions = [f"Human: {_check('question', human)} Assistant:" for human, _ in turns]
    answers = [_check("answer", assistant) for _, assistant in turns]

    def write(number: int) -> Pair:
        first = 0 if max_turns is None else max(0, number + 1 - max_turns)
        said = zip(questions[first:number], answers[first:number], strict=True)
        parts = [part for turn in said for part in turn]
        return Pair(" ".join([*parts, questions[number]]), answers[number])

    # One after the other: together they are as long as the square of the dialogue.
    return map(write, range(len(turns)))


def format_code(instruction: str, output: str, context: str = "") -> Pair:
    r"""Returns an instruction with the program that follows it.

    Args:
        instruction: what the program shall do.
        output: the program.
        context: what it is given, in a line of its own behind the instruction.

    Raises:
        ValueError: instruction or output is empty.

    Example:
        >>> format_code("Add two numbers.", "a + b").target
        'a + b'
    """
    source = _check("instruction", instruction)
    if context.strip():
        source = f"{source}\n{context.strip()}"
    return Pair(source, _check("output", output))


def format_instruction_generation(answer: str, instruction: str, *, language: str = "en") -> Pair:
    """Returns a request for the instruction that a text answers, and that instruction.

    Args:
        answer: the text.
        instruction: what it answers.
        language: of the request, `en` or `zh`.

    Raises:
        ValueError: a text is empty, or the language is another.

    Example:
        >>> format_instruction_generation("Paris", "Name a city.").source
        'Please generate the instruction according to the text I provide: Paris.'
    """
    before, behind = GENERATION_SOURCES[check_language(language)].split("{answer}")
    return Pair(f"{before}{_check('answer', answer)}{behind}", _check("instruction", instruction))


def format_tool(query: str, results: str, *, question: str | None = None) -> Pair:
    """Returns how a tool is called and what it gives, `WikiSearch({query}) -> {results}`.

    With a question, that is the source, and the model writes call and results. Without one the
    call is the source, and the model writes the results.

    Args:
        query: what is searched for.
        results: what is found.
        question: what the search is for.

    Raises:
        ValueError: a text is empty.

    Example:
        >>> format_tool("Ada", "A baker.", question="Who is Ada?").target
        'WikiSearch(Ada) -> A baker.'
        >>> format_tool("Ada", "A baker.")
        Pair(source='WikiSearch(Ada)', target='A baker.')
    """
    call, found = f"{TOOL}({_check('query', query)})", _check("results", results)
    if question is None:
        return Pair(call, found)
    return Pair(_check("question", question), f"{call} -> {found}")


def guess_language(text: str) -> str:
    """Returns `zh` where a text has more Han characters than words of Latin letters, or `en`.

    Args:
        text: any text.

    Example:
        >>> guess_language("用 Python 写一个函数"), guess_language("Say 你好 in Chinese, please")
        ('zh', 'en')
    """
    return "zh" if len(_HAN.findall(text)) > len(_WORD.findall(text)) else "en"


def _check(name: str, text: str) -> str:
    """A text without blanks around it, which the format has of its own."""
    found = text.strip()
    if not found:
        raise ValueError(f"the {name} is empty")
    return found
