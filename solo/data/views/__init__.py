"""What is made of an image: operations, pipelines image by image, and whole batches at once."""
