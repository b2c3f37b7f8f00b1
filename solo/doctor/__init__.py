"""Checks that a user can run on their own machine: `solo doctor`. The tests run the same functions."""
