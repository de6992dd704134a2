"""The networks, one file each; importing this puts them into BasicSR's registry."""

from earn_plugin.archs.earn_arch import EARN

__all__ = ['EARN']
