"""What training reads: MATLAB's bicubic, the data set that makes LR images itself, the seeded stream and its loaders.

Images are checked by their headers before training starts, in folders and in LMDBs.
"""
