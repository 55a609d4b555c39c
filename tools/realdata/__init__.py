"""Real images and real teachers: pinned packages, fetched when needed, never committed."""
