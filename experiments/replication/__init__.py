"""The published systems: what they reported, how they are run, and the tables beside each other."""
