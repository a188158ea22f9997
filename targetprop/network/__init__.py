"""A network as pairs of forward blocks and their feedback."""
