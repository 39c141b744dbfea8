"""Cross-validation: one fold, all folds, workers, results on disk, and the statistics of them."""
