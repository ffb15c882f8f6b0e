"""Text diffusion in few steps."""
