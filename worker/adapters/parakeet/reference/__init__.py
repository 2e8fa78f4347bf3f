"""NeMo: the judge of the network's tokens, and the engine of models that the network does not know.

The only room that imports NeMo, whose import costs 10 s and 0.7 GB. Images have it where they are built with NEMO=1.
"""
