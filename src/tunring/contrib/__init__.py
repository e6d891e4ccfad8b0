"""Helpers for other packages, each of which is imported only when its module here is."""
