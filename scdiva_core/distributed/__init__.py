"""One embedding on many machines: chunks of cells computed by dask workers, written side by side into zarr."""
