"""The NTIRE challenge: what each year requires, validation as the organisers do it, export of a submission, upload.

``validate``, ``export`` and ``upload`` are the three commands; ``protocol`` has each year's gate and score.
"""
