"""The commands `lmcore detox ...`."""

from lmcore.cli.detox.chains import chains_command
from lmcore.cli.detox.continuing import continue_command
from lmcore.cli.detox.evaluate import evaluate_command
from lmcore.cli.detox.fill import fill_command
from lmcore.cli.detox.generate import generate_command
from lmcore.cli.detox.mask import mask_command
from lmcore.cli.detox.run import run_command
from lmcore.cli.detox.score import score_command
from lmcore.cli.detox.score_spans import score_spans_command
from lmcore.cli.detox.select import select_command
from lmcore.cli.detox.spans import spans_command
from lmcore.cli.detox.train import recipe_command, train_command
from lmcore.cli.detox.train_scorer import train_scorer_command
from lmcore.cli.detox.train_spans import span_recipe_command, train_spans_command
from lmcore.cli.failures import make_app

app = make_app()
app.command("score")(score_command)
app.command("train-scorer")(train_scorer_command)
app.command("train-spans")(train_spans_command)
app.command("span-recipe")(span_recipe_command)
app.command("spans")(spans_command)
app.command("score-spans")(score_spans_command)
app.command("mask")(mask_command)
app.command("fill")(fill_command)
app.command("continue")(continue_command)
app.command("select")(select_command)
app.command("run")(run_command)
app.command("chains")(chains_command)
app.command("train")(train_command)
app.command("recipe")(recipe_command)
app.command("generate")(generate_command)
app.command("evaluate")(evaluate_command)
