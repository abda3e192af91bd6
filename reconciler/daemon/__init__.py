"""The composition root: builds everything, and runs it until told to stop."""
