"""`python -m lmcore` is the command `lmcore`."""

from lmcore.cli import main

main()
