"""The likelihood microscope: surrogates against the exact log-likelihood of what the sampler does, enumerated."""
