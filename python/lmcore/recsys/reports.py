"""Counts of what reading and filtering interactions changed or left out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from lmcore._text import count_noun

__all__ = ["FilterReport", "InteractionReport", "SplitReport"]


_NOUNS = ("user", "item", "interaction")
ORDER_TRUSTED = "no times: the order of the rows was trusted"


@dataclass(kw_only=True, slots=True, frozen=True)
class InteractionReport:
    """What was read, and what reading changed or left out."""

    users: int
    """U."""
    items: int
    """I."""
    interactions: int
    """Those kept."""
    repeated: int = 0
    """Interactions with an item that the user had before; they are kept."""
    remapped_users: int = 0
    """Users whose id is not their original one."""
    remapped_items: int = 0
    """Items whose id is not their original one."""
    unsorted: int = 0
    """Rows with an earlier timestamp than the user's row before; they were sorted."""
    skipped: int = 0
    """Rows left out because they could not be used."""
    listed_skipped: tuple[str, ...] = field(default=(), repr=False)
    """Place and problem of the first 1000 of them."""
    is_order_trusted: bool = False
    """Whether there were no times, so that the order of the rows was taken for theirs."""

    def describe(self) -> str:
        """Returns one line of text: the sizes, and whatever is not 0.

        Example:
            >>> InteractionReport(users=2, items=1200, interactions=9, repeated=1).describe()
            '2 users, 1,200 items, 9 interactions (1 repeated)'
        """
        sizes = [count_noun(getattr(self, f"{noun}s"), noun) for noun in _NOUNS]
        notes = {
            "repeated": self.repeated,
            "users remapped": self.remapped_users,
            "items remapped": self.remapped_items,
            "out of time order": self.unsorted,
            "rows skipped": self.skipped,
        }
        changes = ", ".join(f"{count:,} {name}" for name, count in notes.items() if count)
        text = ", ".join(sizes) + (f" ({changes})" if changes else "")
        return f"{text}; {ORDER_TRUSTED}" if self.is_order_trusted else text

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers, and what was skipped or trusted if anything was."""
        result = asdict(self)
        for name in ("listed_skipped", "is_order_trusted"):
            if not result[name]:
                del result[name]
        return result


@dataclass(kw_only=True, slots=True, frozen=True)
class FilterReport:
    """What a filter asked for, and how much it left; pairs are counts before and after."""

    min_user: int
    """Fewest interactions of a user."""
    min_item: int
    """Fewest interactions of an item."""
    users: tuple[int, int]
    """U."""
    items: tuple[int, int]
    """I."""
    interactions: tuple[int, int]
    """Rows."""

    def describe(self) -> str:
        """Returns one line of text.

        Example:
            >>> counts = {"users": (3, 2), "items": (9, 9), "interactions": (1200, 1100)}
            >>> FilterReport(min_user=5, min_item=1, **counts).describe()
            'kept 2 of 3 users, 9 of 9 items, 1,100 of 1,200 interactions (users of at least 5)'
        """
        pairs = [(*getattr(self, f"{noun}s"), noun) for noun in _NOUNS]
        sizes = [f"{after:,} of {count_noun(before, noun)}" for before, after, noun in pairs]
        rules = {"users": self.min_user, "items": self.min_item}
        notes = [f"{name} of at least {least}" for name, least in rules.items() if least > 1]
        return f"kept {', '.join(sizes)}" + (f" ({', '.join(notes)})" if notes else "")

    def to_dict(self) -> dict[str, int]:
        """Returns what was asked for: what makes the same of the same interactions."""
        return {"min_user": self.min_user, "min_item": self.min_item}


@dataclass(kw_only=True, slots=True, frozen=True)
class SplitReport:
    """What a split gave to each part, and what it left out of the targets."""

    training: int
    """Interactions that are trained on."""
    training_only: int
    """Users without any target."""
    valid_users: int
    """Users with a validation target."""
    valid_targets: int
    """Validation targets, each item once for a user."""
    test_users: int
    """Users with a test target."""
    test_targets: int
    """Test targets, each item once for a user."""
    cold_targets: int = 0
    """Targets whose item no one has in the training part, kept or dropped as the rule says."""
    users_without_input: int = 0
    """Users who are new in a part: nothing stands before their targets, which are dropped."""

    def describe(self) -> str:
        """Returns one line of text: the sizes, and whatever is not 0.

        Example:
            >>> counts = {"valid_users": 5, "valid_targets": 5, "test_users": 5, "test_targets": 8}
            >>> SplitReport(training=90, training_only=0, **counts).describe()
            '90 to train on, 5 users with 5 validation targets, 5 users with 8 test targets'
        """
        text = (
            f"{self.training:,} to train on, {count_noun(self.valid_users, 'user')} with "
            f"{count_noun(self.valid_targets, 'validation target')}, "
            f"{count_noun(self.test_users, 'user')} with "
            f"{count_noun(self.test_targets, 'test target')}"
        )
        notes = {
            "of items that are new to training": self.cold_targets,
            "users with nothing before their targets": self.users_without_input,
        }
        changes = ", ".join(f"{count:,} {name}" for name, count in notes.items() if count)
        return text + (f" ({changes})" if changes else "")

    def to_dict(self) -> dict[str, int]:
        """Returns the numbers."""
        return asdict(self)
