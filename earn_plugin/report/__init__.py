"""A training run as one HTML file: what its folder records, what its network does, and the page."""
