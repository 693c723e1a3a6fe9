"""Linear operators between partitioned tensors with proven adjoints, and the layers composed of them; see docs/parallel.md."""
