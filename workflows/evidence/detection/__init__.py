"""What enhancement does to detectors: water, forest, burnt ground, buildings."""
