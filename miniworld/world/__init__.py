"""The drawn world: scenes, their pictures, the words for them, edits and conversations with exact answers."""
