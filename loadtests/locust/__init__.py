"""Load by Locust: users that do what clients do, and check every answer."""
