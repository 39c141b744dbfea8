"""The typed experiment: its options, checks and error messages, and the parts built from it."""
