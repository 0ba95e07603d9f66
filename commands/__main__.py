"""python -m commands: the command line without its script."""

from commands import main

main()
