"""What data sets there are: a row each, and what a look at the data adds to it. No torch."""
