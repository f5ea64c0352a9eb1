"""Models and losses: open_clip towers, relation-aware convolutions, Knowledge-CLIP."""
