"""Figures as papers print them: training curves, comparison sheets, attention maps, attribution.

``style`` has what they share: sizes, fonts, how a figure is saved.
"""
