"""Enlarges pictures with a trained network: in tiles equal to the whole image, from and to files of any common kind."""
