"""Tells PyInstaller where the package's hook is. Nothing else imports it."""

from __future__ import annotations

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """Name the folder that has the hook; the entry point ``pyinstaller40`` leads here."""
    return [str(Path(__file__).parent)]
