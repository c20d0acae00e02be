"""`python -m ring0`: the same as the command `ring0`."""

from ring0.cli.main import main

main()
