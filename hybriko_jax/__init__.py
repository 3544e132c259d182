"""HybriKo and Gugugo in JAX: Korean small language models for accelerator meshes."""

__version__ = "0.1.0"
