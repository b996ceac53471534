"""Where the library's log lines go, and how a program adds its own."""
