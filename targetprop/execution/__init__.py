"""How a training step is executed; none of it changes a result."""
