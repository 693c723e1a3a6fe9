"""Supervised fine-tuning and direct preference optimisation through trl."""
