"""Measuring the engine where there is nothing but torch, numpy, sentencepiece, PyYAML and this checkout."""
