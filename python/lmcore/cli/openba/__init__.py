"""The commands `lmcore openba ...`."""

from lmcore.cli.failures import make_app
from lmcore.cli.openba.chain import chain_command
from lmcore.cli.openba.clean import clean_command
from lmcore.cli.openba.convert import convert_command
from lmcore.cli.openba.cost import cost_command
from lmcore.cli.openba.evaluate import evaluate_command
from lmcore.cli.openba.export import export_command
from lmcore.cli.openba.format import format_command
from lmcore.cli.openba.generate import generate_command
from lmcore.cli.openba.instructions import instructions_command
from lmcore.cli.openba.pack import pack_command
from lmcore.cli.openba.train import recipe_command, train_command

# In the order in which they are used.
app = make_app()
app.command("clean")(clean_command)
app.command("instructions")(instructions_command)
app.command("format")(format_command)
app.command("pack")(pack_command)
app.command("train")(train_command)
app.command("recipe")(recipe_command)
app.command("chain")(chain_command)
app.command("generate")(generate_command)
app.command("evaluate")(evaluate_command)
app.command("convert")(convert_command)
app.command("export")(export_command)
app.command("cost")(cost_command)
