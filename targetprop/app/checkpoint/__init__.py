"""What a run keeps of itself, and how another process goes on from it."""
