"""The node: a port, and the Xray behind it."""
