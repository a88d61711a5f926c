"""What `tools/release` does.

versions    what a version may look like, and which of two is newer
changelog   CHANGELOG.md: Unreleased becomes a release
places      where the tree names its version
"""
