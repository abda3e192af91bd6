"""Pure decisions: what to do, whether to dare, where to place, when to come back."""
