"""The node plugin: discovery, publishing, prepare and unprepare, hotplug, recovery."""
