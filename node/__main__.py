"""`python -m node` is `shoal`."""

from node.cli import main

main(prog_name="shoal")
