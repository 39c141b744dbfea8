"""All that depends on jsonargparse's private attributes and on the texts of its messages.

jsonargparse says of a wrong value which types it tried, in a tree of many lines; a user needs the key, what was given, what
may be given, and the nearest right word. It has no structured errors, so its texts are read by regular expressions
(`lines`, `values`, `messages`), and no public way to its options, their types and its YAML loader (`private`).
tests/config/test_jsonargparse_internals.py fails when a version changes them; pyproject.toml has the upper bound.
"""
