"""`python -m targetprop` is the command `targetprop`."""

from targetprop.cli import main

main()
