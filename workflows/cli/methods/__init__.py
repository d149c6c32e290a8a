"""Commands for single methods: exporting them, and measuring those of contrast, haze and stripes."""
