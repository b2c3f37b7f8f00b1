"""`solo experiment FILE.yaml`: arms that are compared over paired seeds, with settings chosen on training images."""
