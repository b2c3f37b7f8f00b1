"""Where images come from: for each data set a function that gives its images and targets."""
