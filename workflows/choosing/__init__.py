"""Which models run on a scene, where, and what they are told of it: found once, before anything is planned."""
