"""How docstrings of lmcore are read for the site."""

import re
import textwrap
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
_ATTRIBUTES = "Attributes:\n"


class Sections(griffe.Extension):
    """Fields of a class become a section of it, and `Example:` the section whose `>>>` is code."""

    def on_object(self, *, obj: griffe.Object, **options: Any) -> None:
        """Renames the section of one docstring."""
        if obj.docstring:
            obj.docstring.value = _EXAMPLE.sub("Examples:", obj.docstring.value)

    def on_class_members(self, *, cls: griffe.Class, **options: Any) -> None:
        """Moves what is said of the fields into the class; each had a heading of its own."""
        if any(str(base) == "NamedTuple" for base in cls.bases):
            _add_signature(cls)
        if "__post_init__" in cls.members:  # what it refuses is said by the class
            cls.members["__post_init__"].public = False
        lines = ""
        for field in cls.attributes.values():
            if field.docstring and not field.is_private:
                text = textwrap.indent(field.docstring.value, " " * 8).strip()
                lines += f"    {field.name}: {text}\n"
                field.docstring = None
        if lines and cls.docstring:
            before, mark, after = cls.docstring.value.partition(_ATTRIBUTES)
            if mark:  # some stand there already
                cls.docstring.value = before + mark + lines + after
            else:
                cls.docstring.value = f"{before}\n\n{_ATTRIBUTES}{lines}"


def _add_signature(cls: griffe.Class) -> None:
    """What a named tuple is made of; of a dataclass griffe knows it."""
    kind = griffe.ParameterKind.positional_or_keyword
    parameters = [
        griffe.Parameter(field.name, annotation=field.annotation, kind=kind, default=field.value)
        for field in cls.attributes.values()
        if field.annotation is not None and "property" not in field.labels
    ]
    cls.set_member(
        "__init__", griffe.Function("__init__", parameters=griffe.Parameters(*parameters))
    )
