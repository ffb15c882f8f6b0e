"""The commands `lmcore ner ...`."""

from lmcore.cli.failures import make_app
from lmcore.cli.ner.data import data_command
from lmcore.cli.ner.errors import errors_command
from lmcore.cli.ner.predict import predict_command
from lmcore.cli.ner.scoring import align_command, score_command
from lmcore.cli.ner.train import recipe_command, train_command

app = make_app()
app.command("data")(data_command)
app.command("train")(train_command)
app.command("recipe")(recipe_command)
app.command("predict")(predict_command)
app.command("score")(score_command)
app.command("errors")(errors_command)
app.command("align")(align_command)
