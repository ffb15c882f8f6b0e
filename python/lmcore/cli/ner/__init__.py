"""The commands `lmcore ner ...`."""

from lmcore.cli.failures import make_app
from lmcore.cli.ner.data import data_command
from lmcore.cli.ner.errors import errors_command
from lmcore.cli.ner.scoring import align_command, score_command

app = make_app()
app.command("data")(data_command)
app.command("score")(score_command)
app.command("align")(align_command)
app.command("errors")(errors_command)
