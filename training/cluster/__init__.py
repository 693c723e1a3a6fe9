"""Runs over several machines: hosts, checks before the start, a supervisor that restarts, and a rehearsal on one machine."""
