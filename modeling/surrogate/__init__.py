"""Networks that replace simulators."""
