"""The version of this package, which files record."""

VERSION = "0.1.0"
