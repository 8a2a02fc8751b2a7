"""What the diffusion model is: weight layouts now; the schedule and the Denoiser come with editing."""
