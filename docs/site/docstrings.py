"""How docstrings of lmcore are read for the site."""

import re
import textwrap
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class Sections(griffe.Extension):
    """Fields of a class become a section of it, and `Example:` the section whose `>>>` is code."""

    def on_object(self, *, obj: griffe.Object, **options: Any) -> None:
        """Renames the section of one docstring."""
        if obj.docstring:
            obj.docstring.value = _EXAMPLE.sub("Examples:", obj.docstring.value)

    def on_class_members(self, *, cls: griffe.Class, **options: Any) -> None:
        """Moves what is said of the fields into the class; each had a heading of its own."""
        lines = []
        for field in cls.attributes.values():
            if field.docstring and not field.is_private:
                text = textwrap.indent(field.docstring.value, " " * 8).strip()
                lines.append(f"    {field.name}: {text}")
                field.docstring = None
        if lines and cls.docstring:
            cls.docstring.value += "\n\nAttributes:\n" + "\n".join(lines)
