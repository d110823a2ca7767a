"""Policies on the features of a world model: actors, critics, and how imagination trains them."""
