"""What was measured, kept as JSON and shown as tables, pictures and one HTML page."""
