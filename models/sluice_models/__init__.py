"""The example models: data, network and export of each. Of Sluice they import `sluice.export` alone."""
