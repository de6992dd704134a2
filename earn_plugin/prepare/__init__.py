"""What makes and checks data sets: LR images, sub-images, LMDBs, the recipes' tree, the demo, the audit.

Outputs are written atomically with a manifest (counts, sizes, checksums); an interrupted command resumes.
"""
