"""Optimizers: how one is built, and what its state takes."""
