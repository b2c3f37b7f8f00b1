"""Label trees from what people have, and what training is not told of them."""
