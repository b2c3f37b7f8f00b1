"""Decoded images, and memory that is used again."""
