"""One foreign library or kernel interface a file; each translates to the seams of `dra` and `nursery_apps.seams`."""
