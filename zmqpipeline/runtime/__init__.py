"""The runtime: the only code that touches sockets, threads, files and clocks."""
