"""The rules of the programme. Standard library only; nothing here does I/O or asks the time."""
