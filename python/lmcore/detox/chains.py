"""Chains of detoxification as texts: the paper's grammar and the student's (section 3.4).

A chain says whether its prompt is toxic, shows it masked and rephrased where it is, and goes on
from the rephrased prompt. The grammars differ in their marks and in what a chain may leave out:

| | paper's | student's |
| --- | --- | --- |
| marks | `#` | `###` |
| the prompt | in the chain, behind `# Text:` | an input of its own, with an instruction |
| no continuation | ill-formed | "does not have enough context" |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Protocol

Problem = Literal[
    "no_text", "no_verdict", "no_mask_step", "no_rephrase_step", "no_generation",
    "empty_generation", "no_end", "mark_in_field",
]  # fmt: skip
"""What is wrong with a chain."""

MASK = "<MASK>"


@dataclass(kw_only=True, slots=True, frozen=True)
class Chain:
    """The steps from a prompt to its continuation.

    Example:
        >>> chain = Chain(prompt="you blorp", toxic=True, masked="you <MASK>",
        ...     rephrased="you there", continuation="come in")
        >>> PAPER.parse(PAPER.write(chain)) == chain
        True
    """

    prompt: str
    toxic: bool
    masked: str | None = None
    """The prompt with `<MASK>` for toxic segments, if it is toxic."""
    rephrased: str | None = None
    """The prompt without toxic segments, if it is toxic."""
    continuation: str | None = None
    """What follows the rephrased prompt, or the prompt that is not toxic."""

    def __post_init__(self) -> None:
        if self.toxic and (self.masked is None or self.rephrased is None):
            raise ValueError("a toxic prompt needs its masked and its rephrased text")
        if not self.toxic and (self.masked is not None or self.rephrased is not None):
            raise ValueError("a prompt that is not toxic has neither a masked nor a rephrased text")

    @property
    def context(self) -> str:
        """Returns the text that is continued."""
        return self.prompt if self.rephrased is None else self.rephrased


class ChainError(ValueError):
    """A text that is no chain of a grammar, and the kind of problem.

    Example:
        >>> try:
        ...     PAPER.parse("# Text: hello # and so on")
        ... except ChainError as error:
        ...     print(error.problem)
        no_verdict
    """

    def __init__(self, problem: Problem, message: str) -> None:
        super().__init__(message)
        self.problem = problem


class Grammar(Protocol):
    """How chains are written and read."""

    def write_input(self, prompt: str) -> str:
        """Returns what a model is given."""

    def write_output(self, chain: Chain) -> str:
        """Returns what a model shall write after `write_input`."""

    def write_template(self, chain: Chain) -> str:
        """Returns the whole chain as far as the mark behind which the continuation follows."""

    def write(self, chain: Chain) -> str:
        """Returns the whole chain, input and output."""

    def parse(self, text: str) -> Chain:
        """Returns the chain of a whole text."""

    def parse_output(self, prompt: str, output: str) -> Chain:
        """Returns the chain of a prompt and what a model wrote for it."""

    def is_whole(self, output: str) -> bool:
        """Returns whether what a model wrote has come to the mark behind its continuation."""

    def find_mark(self, chain: Chain) -> str | None:
        """Returns the name of a field that holds a mark of the grammar."""


_BEGIN = " # Let's detoxify step by step. # The context is "
_VERDICTS = {"toxic.": True, "non-toxic.": False}
_MASKED = " # Detect the toxic segment within the context: "
_REPHRASED = " # Detoxify the toxic segments: "
_GENERATION = " # Generation:"


class PaperGrammar:
    """The grammar of `utils/make_train_set.py`: one text, with `#` between its steps.

    A continuation ends at the next `#` (section 5), so that a text with one of its own is cut
    there when it is read; `find_mark` tells such chains beforehand.

    Example:
        >>> PAPER.write(Chain(prompt="hello", toxic=False, continuation="world"))
        "# Text: hello # Let's detoxify step by step. # The context is non-toxic. # Generation: \
world #"
    """

    def write_input(self, prompt: str) -> str:
        """Returns what a model is given: what stands before "# Let's detoxify step by step".

        Args:
            prompt: any text.
        """
        return f"# Text: {prompt}"

    def write_output(self, chain: Chain) -> str:
        """Returns what a model shall write after `write_input`.

        Args:
            chain: with a continuation.
        """
        return self.write(chain)[len(self.write_input(chain.prompt)) :]

    def write_template(self, chain: Chain) -> str:
        """Returns the chain cut right after "# Generation:" (`cl_template`).

        Args:
            chain: its continuation does not matter.
        """
        steps = f"{_MASKED}{chain.masked}{_REPHRASED}{chain.rephrased}" if chain.toxic else ""
        verdict = "toxic." if chain.toxic else "non-toxic."
        return f"{self.write_input(chain.prompt)}{_BEGIN}{verdict}{steps}{_GENERATION}"

    def write(self, chain: Chain) -> str:
        """Returns the whole chain.

        Args:
            chain: with a continuation.

        Raises:
            ValueError: the chain has none.
        """
        if chain.continuation is None:
            raise ValueError("the paper's grammar has no chain without a continuation")
        return f"{self.write_template(chain)} {chain.continuation} #"

    def parse(self, text: str) -> Chain:
        """Returns the chain of a whole text.

        Args:
            text: as `write` makes it, or as a model ends it: the last mark may be missing.

        Raises:
            ChainError: a step is missing.
        """
        start = self.write_input("")
        if not text.startswith(start):
            raise ChainError("no_text", f"expected a chain to begin with {start.strip()!r}")
        prompt, begin, rest = text[len(start) :].partition(_BEGIN)
        if not begin:
            raise ChainError("no_verdict", f"expected {_BEGIN.strip()!r} in a chain")
        return self.parse_output(prompt, begin + rest)

    def parse_output(self, prompt: str, output: str) -> Chain:
        """Returns the chain of a prompt and what a model wrote for it.

        Args:
            prompt: what the model was asked for.
            output: the steps, with or without the space before the first mark.

        Raises:
            ChainError: a step is missing.
        """
        begin, rest = _BEGIN.lstrip(), output.lstrip()
        verdict = next((v for v in _VERDICTS if rest.startswith(begin + v)), None)
        if verdict is None:
            raise ChainError("no_verdict", f"expected {begin!r} and toxic or non-toxic")
        rest = rest[len(begin + verdict) :]
        masked = rephrased = None
        if toxic := _VERDICTS[verdict]:
            _, mark, rest = rest.partition(_MASKED)
            if not mark:
                raise ChainError("no_mask_step", f"expected {_MASKED.strip()!r} in a toxic chain")
            masked, mark, rest = rest.partition(_REPHRASED)
            if not mark:
                raise ChainError("no_rephrase_step", f"expected {_REPHRASED.strip()!r}")
            rephrased, mark, rest = rest.partition(_GENERATION)
        else:
            _, mark, rest = rest.partition(_GENERATION)
        if not mark:
            raise ChainError("no_generation", f"expected {_GENERATION.strip()!r} in a chain")
        continuation = rest.removeprefix(" ").partition("#")[0].removesuffix(" ")
        if not continuation.strip():
            raise ChainError("empty_generation", f"nothing follows {_GENERATION.strip()!r}")
        return Chain(
            prompt=prompt, toxic=toxic, masked=masked, rephrased=rephrased,
            continuation=continuation,
        )  # fmt: skip

    def is_whole(self, output: str) -> bool:
        """Returns whether what a model wrote has come to the mark behind its continuation.

        Args:
            output: the steps so far.
        """
        return "#" in output.partition(_GENERATION)[2]

    def find_mark(self, chain: Chain) -> str | None:
        """Returns the name of a field that holds a mark, by which it would be read otherwise.

        Args:
            chain: any chain.
        """
        marks = {
            "prompt": _BEGIN, "masked": _REPHRASED, "rephrased": _GENERATION, "continuation": "#",
        }  # fmt: skip
        return next((name for name, mark in marks.items() if _holds(chain, name, mark)), None)


_INSTRUCTION = (
    "Determine if the following input is toxic or non-toxic. If the text is toxic, mask the toxic "
    "portion of the text. Fine one or several non-toxic and appropriate tokens to replace <MASK> "
    "and the masked text can be rephrased into a non-toxic version. If the text is non-toxic, "
    "generate a continuation if there is enough context. Otherwise return the detoxified text."
)
_STUDENT_BEGIN = "###Let's detoxify step by step. ###The text is "
_STUDENT_MASKED = " ###Mask the toxic portion of the text: ###"
_STUDENT_REPHRASED = (
    " ###Find one or several non-toxic and appropriate tokens to replace <MASK> and the masked "
    "text can be rephrased into a non-toxic version: ###"
)
_CONTINUED = "enough context. ###The Continuation is: ###"
_ENDED = "not have enough context, so there is no need to generate a continuation."
_SUBJECTS = {
    # Toxic, and whether a continuation follows.
    (True, True): " ###The rephrased prompt has ",
    (True, False): " ###The rephrased prompt does ",
    (False, True): " ###It has ",
    (False, False): " ###The prompt does ",
}
_END = "###"


class StudentGrammar:
    """The grammar of the student's data: an instruction, an input, and steps between `###`.

    Its continuations begin with the prompt. The instruction is written as it is there, "Fine one"
    included.

    Example:
        >>> chain = Chain(prompt="hello", toxic=False)
        >>> STUDENT.write_output(chain)
        "###Let's detoxify step by step. ###The text is non-toxic. ###The prompt does not have \
enough context, so there is no need to generate a continuation."
    """

    instruction = _INSTRUCTION
    _WHOLE = re.compile(r"### Instruction:\n(.*?)\n\n### Input:\n(.*?)\n\n### Response:", re.DOTALL)

    def write_input(self, prompt: str) -> str:
        """Returns what a model is given, in Alpaca's form.

        Args:
            prompt: any text.
        """
        return (
            "Below is an instruction that describes a task, paired with an input that provides "
            "further context. Write a response that appropriately completes the request.\n\n"
            f"### Instruction:\n{self.instruction}\n\n### Input:\n{prompt}\n\n### Response:"
        )

    def write_output(self, chain: Chain) -> str:
        """Returns what a model shall write after `write_input`.

        Args:
            chain: without a continuation, it says that there is not enough context.
        """
        if chain.continuation is None:
            return f"{self._write_steps(chain)}{_SUBJECTS[chain.toxic, False]}{_ENDED}"
        return f"{self._write_continued(chain)}{chain.continuation}{_END}"

    def write_template(self, chain: Chain) -> str:
        """Returns the whole chain as far as the mark behind which the continuation follows.

        Args:
            chain: its continuation does not matter.
        """
        return self.write_input(chain.prompt) + self._write_continued(chain)

    def write(self, chain: Chain) -> str:
        """Returns the whole chain.

        Args:
            chain: any chain.
        """
        return self.write_input(chain.prompt) + self.write_output(chain)

    def parse(self, text: str) -> Chain:
        """Returns the chain of a whole text.

        Args:
            text: input and output.

        Raises:
            ChainError: a step is missing.
        """
        found = self._WHOLE.search(text)
        if found is None:
            raise ChainError("no_text", "expected '### Input:' and '### Response:' in a chain")
        return self.parse_output(found[2], text[found.end() :])

    def parse_output(self, prompt: str, output: str) -> Chain:
        """Returns the chain of a prompt and what a model wrote for it.

        Args:
            prompt: what the model was asked for.
            output: the steps; spaces before them are passed over.

        Raises:
            ChainError: a step is missing.
        """
        rest = output.lstrip()
        verdict = next((v for v in _VERDICTS if rest.startswith(_STUDENT_BEGIN + v)), None)
        if verdict is None:
            raise ChainError("no_verdict", f"expected {_STUDENT_BEGIN!r} and toxic or non-toxic")
        rest = rest[len(_STUDENT_BEGIN + verdict) :]
        toxic, masked, rephrased = _VERDICTS[verdict], None, None
        if toxic:
            _, mark, rest = rest.partition(_STUDENT_MASKED)
            if not mark:
                raise ChainError("no_mask_step", f"expected {_STUDENT_MASKED.strip()!r}")
            masked, mark, rest = rest.partition(_STUDENT_REPHRASED)
            if not mark:
                raise ChainError("no_rephrase_step", f"expected {_STUDENT_REPHRASED.strip()!r}")
        before, mark, after = rest.partition(_SUBJECTS[toxic, True] + _CONTINUED)
        if not mark:
            before, mark, after = rest.partition(_SUBJECTS[toxic, False] + _ENDED)
            if not mark:
                raise ChainError("no_generation", "expected a continuation, or that there is none")
            continuation = None
        else:
            continuation = after.partition(_END)[0]
            if not continuation.strip():
                raise ChainError("empty_generation", "nothing follows 'The Continuation is:'")
        rephrased = before if toxic else None
        return Chain(
            prompt=prompt, toxic=toxic, masked=masked, rephrased=rephrased,
            continuation=continuation,
        )  # fmt: skip

    def is_whole(self, output: str) -> bool:
        """Returns whether what a model wrote has come to the mark behind its continuation.

        Args:
            output: the steps so far; one without a continuation has no such mark.
        """
        return _END in output.partition(_CONTINUED)[2]

    def find_mark(self, chain: Chain) -> str | None:
        """Returns the name of a field that holds a mark, by which it would be read otherwise.

        Args:
            chain: any chain.
        """
        subjects = [_SUBJECTS[chain.toxic, more].strip() for more in (True, False)]
        marks = {
            "prompt": ["\n\n### Response:"], "masked": [_STUDENT_REPHRASED],
            "rephrased": subjects, "continuation": [_END],
        }  # fmt: skip
        for name, found in marks.items():
            if any(_holds(chain, name, mark) for mark in found):
                return name
        return None

    def _write_steps(self, chain: Chain) -> str:
        if not chain.toxic:
            return f"{_STUDENT_BEGIN}non-toxic."
        steps = f"{_STUDENT_MASKED}{chain.masked}{_STUDENT_REPHRASED}{chain.rephrased}"
        return f"{_STUDENT_BEGIN}toxic.{steps}"

    def _write_continued(self, chain: Chain) -> str:
        return f"{self._write_steps(chain)}{_SUBJECTS[chain.toxic, True]}{_CONTINUED}"


def _holds(chain: Chain, name: str, mark: str) -> bool:
    """Whether a mark is found in a field, or earlier than behind it."""
    value: str = getattr(chain, name) or ""
    return (value + mark).index(mark) < len(value)


PAPER: Grammar = PaperGrammar()
STUDENT: Grammar = StudentGrammar()
GRAMMARS = {"paper": PAPER, "student": STUDENT}
