"""Who may connect: key files, CURVE, and the socket that libzmq asks (ZAP)."""
