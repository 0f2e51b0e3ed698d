"""Reviews of detections in a SQL database: SQLite, or PostgreSQL."""
