"""The commands `lmcore diffusion ...`."""

from lmcore.cli.diffusion.mbr import mbr_command
from lmcore.cli.diffusion.score import score_command
from lmcore.cli.failures import make_app

app = make_app()
app.command("mbr")(mbr_command)
app.command("score")(score_command)
