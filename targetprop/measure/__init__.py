"""What is measured beside the training, without touching it."""
