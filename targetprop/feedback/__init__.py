"""How the feedback learns: a file for each way."""
