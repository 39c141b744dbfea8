"""Small helpers that know nothing of experiments: paths, files, text, standard output."""
