"""The configuration: one TOML file, checked as a whole, secrets apart."""

from reconciler.config.reading import load
from reconciler.config.reference import reference
from reconciler.config.sections import Config
from reconciler.config.words import socket_path, split_address

__all__ = ["Config", "load", "reference", "socket_path", "split_address"]
