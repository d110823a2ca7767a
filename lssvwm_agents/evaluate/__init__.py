"""Measure agents, and show what they do; import from the modules, for commands must be quick to load."""
