"""Small things that all folders use."""
