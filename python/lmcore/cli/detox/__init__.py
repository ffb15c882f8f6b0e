"""The commands `lmcore detox ...`."""

from lmcore.cli.detox.chains import chains_command
from lmcore.cli.detox.generate import generate_command
from lmcore.cli.detox.train import recipe_command, train_command
from lmcore.cli.failures import make_app

app = make_app()
app.command("chains")(chains_command)
app.command("train")(train_command)
app.command("recipe")(recipe_command)
app.command("generate")(generate_command)
