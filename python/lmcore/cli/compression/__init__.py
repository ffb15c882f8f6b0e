"""The commands `lmcore compression ...`."""

from lmcore.cli.compression.count import count_command
from lmcore.cli.compression.remap import remap_command
from lmcore.cli.compression.vocabulary import vocabulary_command
from lmcore.cli.failures import make_app

app = make_app()
app.command("count")(count_command)
app.command("remap")(remap_command)
app.command("vocabulary")(vocabulary_command)
