"""What ``python -m tunring`` does: one module a command."""
