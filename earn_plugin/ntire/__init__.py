"""The NTIRE challenge: ``years`` has what each year requires; the commands are ``validate``, ``export`` and ``upload``.

``validate`` uses image_pairs, official_run, results and validation_report; ``export`` uses network_checks, single_file
with exported_helpers, organisers_script, factsheet, and self_check with old_versions and probe.
"""
