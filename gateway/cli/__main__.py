"""`python -m gateway.cli`: the command line where the console command is not on the path."""

from gateway.cli import main

main()
