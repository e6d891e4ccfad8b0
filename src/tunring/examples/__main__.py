"""``python -m tunring.examples``: the list of programs."""

from __future__ import annotations

from tunring.examples import PROGRAMS


def main() -> None:
    """Print the list."""
    print("The cookbook's programs; --help lists the options of each:\n")
    width = max(map(len, PROGRAMS))
    for name, text in PROGRAMS.items():
        print(f"  python -m tunring.examples.{name:{width}}  {text}")


if __name__ == "__main__":
    main()
