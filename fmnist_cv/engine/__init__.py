"""The engine: trains and scores one fold (`fold`, `fold_scoring`), and runs the folds of a run (`workers`, `run_folder`)."""
