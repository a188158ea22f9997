"""`python -m targetprop` is the command `targetprop`."""

from targetprop.app.cli import main

main()
