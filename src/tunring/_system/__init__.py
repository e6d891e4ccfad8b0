"""Questions to the operating system, beside configuration."""

from __future__ import annotations
