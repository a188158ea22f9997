"""What a run shows to people: its configuration as a tree, its curves, and its results as a table."""
