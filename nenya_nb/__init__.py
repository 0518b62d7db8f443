"""See self-supervised vision learn."""

__version__ = "0.1.0"
