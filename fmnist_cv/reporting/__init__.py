"""What a finished run looks like: its HTML report, and what TensorBoard shows on request."""
