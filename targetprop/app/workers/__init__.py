"""The processes of a layer-parallel run: how they are started, give signs of life, are missed and end."""
