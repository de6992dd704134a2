"""The metrics registered in BasicSR, and bicubic upscaling as the baseline that results are compared with."""

from earn_plugin.metrics.ntire_metrics import calculate_ntire_psnr, calculate_ntire_ssim

__all__ = ['calculate_ntire_psnr', 'calculate_ntire_ssim']
