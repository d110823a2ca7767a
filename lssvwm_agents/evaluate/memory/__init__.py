"""How far back a world model remembers, shown against controls."""
