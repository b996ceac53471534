"""What an app declares: decorators, signatures, registry; and how roles of the class API are made of it."""
