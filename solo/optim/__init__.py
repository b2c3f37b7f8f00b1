"""Optimizers, schedules of their rates, and what these give in each step; they know tensors, never a config."""
