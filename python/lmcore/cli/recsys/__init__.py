"""The commands `lmcore recsys ...`."""

from lmcore.cli.failures import make_app
from lmcore.cli.recsys.evaluate import evaluate_command
from lmcore.cli.recsys.recommend import recommend_command
from lmcore.cli.recsys.train import recipe_command, train_command

# In the order in which they are used.
app = make_app()
app.command("train")(train_command)
app.command("recipe")(recipe_command)
app.command("evaluate")(evaluate_command)
app.command("recommend")(recommend_command)
