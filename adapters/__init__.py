"""The outside world, behind domain/ports.py: the clock, mail servers, billing providers, files."""
