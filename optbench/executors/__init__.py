"""Executors: who runs the trials of a plan. Results travel through the store, not through return values."""
