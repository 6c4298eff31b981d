"""`python -m raylift` is `raylift`."""

from raylift.cli import main

main()
