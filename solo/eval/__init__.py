"""Evaluation: features and labels in, numbers out; no Lightning."""
