"""The commands `lmcore compression ...`."""

from lmcore.cli.compression.cost import cost_command
from lmcore.cli.compression.count import count_command
from lmcore.cli.compression.learn_masks import learn_masks_command
from lmcore.cli.compression.plan import plan_command, recipe_command
from lmcore.cli.compression.prune import prune_command
from lmcore.cli.compression.recover import recover_command
from lmcore.cli.compression.remap import remap_command
from lmcore.cli.compression.vocabulary import vocabulary_command
from lmcore.cli.failures import make_app

app = make_app()
app.command("plan")(plan_command)
app.command("recipe")(recipe_command)
app.command("cost")(cost_command)
app.command("prune")(prune_command)
app.command("recover")(recover_command)
app.command("learn-masks")(learn_masks_command)
app.command("count")(count_command)
app.command("vocabulary")(vocabulary_command)
app.command("remap")(remap_command)
