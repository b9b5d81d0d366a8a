"""What each part of a recipe is worth: the differences between two specs, models between them, effects of each step."""
