"""Waiting in event loops."""

from __future__ import annotations
