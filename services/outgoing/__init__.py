"""What the service is told: written down with what happens (writing.py), sent (sending.py), looked after (desk.py)."""
