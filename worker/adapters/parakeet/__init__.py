"""NVIDIA Parakeet TDT through NeMo, in a process of its own."""
