"""python -m regraft.cli: the command line without its script."""

from regraft.cli import main

main()
