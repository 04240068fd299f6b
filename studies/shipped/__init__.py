"""The likelihood microscope on shipped policies: surrogates against the sampler's own law, by importance sampling."""
