"""Typed msgspec structs for the few Kubernetes kinds the driver touches; unknown fields are ignored on read and never written back."""
