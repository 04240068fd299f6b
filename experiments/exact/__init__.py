"""The likelihood microscope: every surrogate against the exact log-likelihood of what the sampler does, by enumeration."""
