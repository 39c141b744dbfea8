"""Finished runs read back: out-of-fold results, statistics, comparisons."""
