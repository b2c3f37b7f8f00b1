"""Which images make a batch, in which order, and the loaders that hand them out."""
