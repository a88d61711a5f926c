"""What tools/image checks."""
