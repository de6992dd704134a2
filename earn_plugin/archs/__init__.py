"""The networks, one file each, in pure torch; importing this package registers them in BasicSR.

A network's file imports blocks, attention and arguments, but no other network.
"""

from earn_plugin.archs.a2n_arch import A2N
from earn_plugin.archs.dual_attention_rcan_arch import DualAttentionRCAN
from earn_plugin.archs.earn_arch import EARN
from earn_plugin.archs.han_arch import HAN
from earn_plugin.archs.lgvan_arch import LGVAN
from earn_plugin.archs.rk4rdn_arch import RK4RDN
from earn_plugin.archs.rnan_arch import RNAN
from earn_plugin.archs.srgan_discriminator_arch import SRGANDiscriminator

__all__ = ['A2N', 'EARN', 'HAN', 'LGVAN', 'RK4RDN', 'RNAN', 'DualAttentionRCAN', 'SRGANDiscriminator']
