"""How images and labels lie on disk, and how a file becomes pixels. Knows of no data set; no torch."""
