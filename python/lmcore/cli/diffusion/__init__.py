"""The commands `lmcore diffusion ...`."""

from lmcore.cli.diffusion.mbr import mbr_command
from lmcore.cli.diffusion.profile import profile_command
from lmcore.cli.diffusion.sample import sample_command
from lmcore.cli.diffusion.score import score_command
from lmcore.cli.diffusion.train import recipe_command, train_command
from lmcore.cli.failures import make_app

app = make_app()
app.command("train")(train_command)
app.command("recipe")(recipe_command)
app.command("profile")(profile_command)
app.command("sample")(sample_command)
app.command("mbr")(mbr_command)
app.command("score")(score_command)
