"""Regression runs: what this night measured, held against a baseline, with an answer for each metric."""
