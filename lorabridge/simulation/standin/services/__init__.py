"""The services of AWS IoT that answer on reserved topics. Sans-I/O: time is an argument."""
