"""The commands `lmcore openba ...`."""

from lmcore.cli.failures import make_app
from lmcore.cli.openba.pack import pack_command

app = make_app()
app.command("pack")(pack_command)


@app.callback()
def _group() -> None:
    """Keeps `pack` a command of the group while it is the only one."""
