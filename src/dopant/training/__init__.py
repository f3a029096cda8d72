"""Training: schedules, seams and one loop."""
