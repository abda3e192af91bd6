"""The demonstration: real nodes, a real client, a real daemon, and what they are seen to do."""
