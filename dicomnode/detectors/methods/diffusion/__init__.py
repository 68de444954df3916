"""Diffusion: noise a plane in part and remove the noise with what was learned on healthy planes."""
