"""The SHA-256 of every file below a folder, as a manifest that ``sha256sum -c`` checks."""
