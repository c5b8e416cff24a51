"""A concentrator with SX1302 or SX1303, driven through the vendor library in a supervised child process."""
