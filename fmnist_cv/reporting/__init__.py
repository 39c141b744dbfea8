"""Finished runs to look at: the HTML report and the label issues it shows."""
