"""Files in: streams read line by line, checked cell by cell, staged and upserted batch by batch."""
