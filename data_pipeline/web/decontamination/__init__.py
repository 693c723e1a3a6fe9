"""Pages that hold benchmark items are found by their n-grams of words, and each benchmark's items are told apart into clean and dirty."""
