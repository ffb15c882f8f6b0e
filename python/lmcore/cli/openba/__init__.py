"""The commands `lmcore openba ...`."""

from lmcore.cli.failures import make_app
from lmcore.cli.openba.pack import pack_command
from lmcore.cli.openba.train import recipe_command, train_command

app = make_app()
app.command("pack")(pack_command)
app.command("train")(train_command)
app.command("recipe")(recipe_command)
