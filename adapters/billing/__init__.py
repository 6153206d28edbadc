"""Billing providers behind domain/ports.py."""
