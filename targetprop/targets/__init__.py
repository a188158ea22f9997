"""Target rules: where targets start, at the output, and how they come down to every block."""
