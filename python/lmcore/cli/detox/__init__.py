"""The commands `lmcore detox ...`."""

from lmcore.cli.detox.evaluate import evaluate_command
from lmcore.cli.detox.score import score_command
from lmcore.cli.detox.train_scorer import train_scorer_command
from lmcore.cli.failures import make_app

app = make_app()
app.command("score")(score_command)
app.command("train-scorer")(train_scorer_command)
app.command("evaluate")(evaluate_command)
