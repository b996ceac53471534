"""The class API, filled in by functions: what the decorators compile to, a module a role, since a process needs one."""
