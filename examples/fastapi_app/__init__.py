"""A web application that asks a service."""
