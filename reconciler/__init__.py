"""Keeps the users of Xray nodes equal to what PostgreSQL says."""

__version__ = "0.1.0"
