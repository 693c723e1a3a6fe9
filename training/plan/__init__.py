"""What a run will need and how fast it may be, before a GPU is rented. Imports no torch."""
