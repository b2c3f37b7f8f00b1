"""The commands, each a function of its config or its words, and what they share."""
