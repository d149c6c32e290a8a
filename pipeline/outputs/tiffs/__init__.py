"""Cloud-Optimized GeoTIFFs out of tiles that others have compressed."""
