"""Training and testing from an options file: the loop, checkpoints and resuming, several processes, logs.

``train`` has the loop; ``checkpoint`` writes what ``resume`` reads.
"""
