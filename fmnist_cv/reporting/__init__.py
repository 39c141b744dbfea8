"""The HTML report of a finished run, and its TensorBoard pages."""
