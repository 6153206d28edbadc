"""Ways for a mail to leave, behind domain/ports.py."""
