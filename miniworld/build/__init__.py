"""Building the miniature: recipes, stages, and a manifest of what was made how."""
