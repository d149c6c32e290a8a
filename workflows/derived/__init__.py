"""Networks made of other networks: smaller ones, and ones that know the user's own scenes."""
