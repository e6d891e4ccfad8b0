"""The commands of ``python -m tunring``: one module per command."""
