"""The miniature world: scenes drawn by code, the words for them, and small models that learn both."""
