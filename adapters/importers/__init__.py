"""Sources of members beyond files."""
