"""Scenes, after RFNet: a language model plans objects and boxes, and a training-free synthesis paints the plan."""
