"""The published systems: what they reported, how they are run, and the tables that compare the two."""
