from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.spynet_arch import SpyNet
from basicsr.archs.swinir_arch import SwinIR

from earn_plugin.archs import EARN
from earn_plugin.catalogue import parameter_count


def test_counts():
    assert parameter_count(EARN) == '2,181,443 parameters'
    assert parameter_count(EDSR) == 'needs num_in_ch, num_out_ch'
    assert parameter_count(SwinIR) == 'its default arguments are inconsistent'  # windows of 7 in an image of 64
    assert parameter_count(SpyNet) == '1,440,300 parameters'
