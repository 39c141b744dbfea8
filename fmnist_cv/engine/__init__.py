"""Train one fold, and all folds of a run: callbacks, workers, the run's folder, progress."""
