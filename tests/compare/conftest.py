"""Commands with made-up runs, for all tests of comparisons."""

from compare_helpers import commands as commands
