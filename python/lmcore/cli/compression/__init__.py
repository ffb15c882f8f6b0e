"""The commands `lmcore compression ...`."""

from lmcore.cli.compression.vocabulary import vocabulary_command
from lmcore.cli.failures import make_app

app = make_app()
app.command("vocabulary")(vocabulary_command)


@app.callback()
def _group() -> None:
    """Smaller models: plans, pruning, vocabularies (OpenBA-V2)."""
