"""NTIRE's metrics, registered in BasicSR by importing this package, and bicubic upscaling as a baseline of results.

PSNR and SSIM themselves are BasicSR's.
"""

from earn_plugin.metrics.ntire_metrics import calculate_ntire_psnr, calculate_ntire_ssim

__all__ = ['calculate_ntire_psnr', 'calculate_ntire_ssim']
