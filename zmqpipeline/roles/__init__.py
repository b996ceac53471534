"""The class API: one file a role, as users subclass them, and what all of them share."""
