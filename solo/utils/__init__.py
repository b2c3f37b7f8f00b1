"""Optimizer, schedule, metrics and the other helpers under solo-learn's import names."""
