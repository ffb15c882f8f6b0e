"""A bilingual corpus whose entropy is known, and a file of pieces that cuts it into its words.

A document tells of somebody in a few sentences. What she does depends on what she is, and the last
sentence says again what the first one said: a model that reads both well loses nothing there.
"""

from lmcore.worlds.openba.documents import LANGUAGES, Document, generate_documents
from lmcore.worlds.openba.piece_file import list_pieces, write_piece_file
from lmcore.worlds.openba.tasks import TEMPLATES, make_instructions
from lmcore.worlds.openba.world import World, make_world

__all__ = [
    "LANGUAGES",
    "TEMPLATES",
    "Document",
    "World",
    "generate_documents",
    "list_pieces",
    "make_instructions",
    "make_world",
    "write_piece_file",
]
