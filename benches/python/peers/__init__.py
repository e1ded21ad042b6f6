"""The libraries: a module each, with a function for each workload, written as their users would write it.

Each takes the server's URL, how many messages, their QoS, and the meter.
"""
