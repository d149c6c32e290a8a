"""What is written: Zarr stores and pyramids, cloud-optimised GeoTIFFs, class maps, tiles."""
