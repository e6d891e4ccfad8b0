"""What the package asks of the operating system, beside configuration."""

from __future__ import annotations
