"""The version of the driver: the one place in code. `tools/release` changes it, together with manifests and documents that must name it."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
"""Semantic version 2.0, of node plugin and controller alike; also the tag of their image."""
