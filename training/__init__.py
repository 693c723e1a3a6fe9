"""Pretraining: the loop, batches, schedule, checkpoints, one rank or many."""
