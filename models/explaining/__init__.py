"""Why a network made a pixel: which input moved it, and what of it no sensor could have told."""
