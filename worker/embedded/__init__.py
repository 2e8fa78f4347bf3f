"""Development servers for demo, emulators and tests; not for production."""
