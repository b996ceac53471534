"""The ground floor: the only code that touches sockets, threads, files and clocks."""
