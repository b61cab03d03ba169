"""cuttlefish, the built-in model that draws: a tiny latent diffusion of coloured shapes, and how it is trained."""
