"""What is known of each type of layer, a file for each family."""
