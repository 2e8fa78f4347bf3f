"""One file or folder a vendor; they never import each other or the core."""
