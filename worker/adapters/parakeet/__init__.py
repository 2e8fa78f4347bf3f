"""NVIDIA Parakeet TDT, in a process of its own."""
