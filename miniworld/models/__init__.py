"""Small models of the drawn world: their networks and trainers, and how they paint, read and talk."""
