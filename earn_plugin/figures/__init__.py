"""Figures and tables as papers print them: training curves, comparison sheets, attention, attribution, ablations.

``style`` has what they share: sizes, fonts, how a figure is saved.
"""
