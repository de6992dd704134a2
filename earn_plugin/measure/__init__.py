"""What a network costs: parameters, multiply-adds and activations as NTIRE counts them, memory, speed.

Everything here measures; nothing here trains or changes a network.
"""
