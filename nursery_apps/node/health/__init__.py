"""What is told of the health of devices, and to whom."""
