"""FastConformer-TDT in plain torch: the network of NVIDIA's Parakeet TDT models, for inference alone."""
