"""Experiments that carry their claim: from a recipe to a table of held-out figures."""
