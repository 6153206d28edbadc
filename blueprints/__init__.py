"""What people drive: a view parses, calls one use case, commits once and responds."""
