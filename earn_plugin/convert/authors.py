"""The checkpoints that the papers' authors publish: how to recognise each, and the authors' names for our parameters.

Each table maps our names to the authors'. Both directions of a conversion use it on the names of our network, so a
conversion is one-to-one, and no missing or unexpected name goes unnoticed.
"""

import math
import re
from typing import Any

import torch
from torch import Tensor

from earn_plugin.convert.checkpoint_format import CheckpointFormat, Renames, Shapes

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


def count_blocks(shapes: Shapes, pattern: str) -> int:
    """One more than the largest number in the group of a pattern; 0 if no name matches it."""
    return max((int(found[1]) + 1 for name in shapes if (found := re.match(pattern, name))), default=0)


def frame_of(shapes: Shapes, first: str, last: str) -> dict[str, Any]:
    """The arguments that the first and the last conv have."""
    num_feat, num_in_ch = shapes[f'{first}.weight'][:2]
    return {'num_in_ch': num_in_ch, 'num_out_ch': shapes[f'{last}.weight'][0], 'num_feat': num_feat}


def upscale_of(shapes: Shapes, prefix: str) -> int:
    """The scale of convs that are each followed by a PixelShuffle."""
    convs = [shape for name, shape in shapes.items() if re.fullmatch(rf'{prefix}\.\d+\.weight', name)]
    return math.prod(math.isqrt(shape[0] // shape[1]) for shape in convs)


def is_same(weight: Tensor, value: Tensor) -> bool:
    value = value.to(weight.dtype).double()  # half precision keeps 3 digits of it
    return weight.shape == value.shape and torch.allclose(weight.double(), value, rtol=0, atol=1e-3)


class EDSRFormat(CheckpointFormat):
    """The frame of EDSR's code: head, body, tail, and the mean shift as two convs with fixed weights."""

    unused = r'(sub|add)_mean\.(weight|bias)'
    frame: Renames = ((r'^conv_first\.', 'head.0.'), (r'^upsample\.', 'tail.0.'), (r'^conv_last\.', 'tail.1.'))

    def required(self, arguments):
        return {'num_in_ch': 3}  # their mean shift has three channels

    def arguments(self, shapes):
        return frame_of(shapes, 'head.0', 'tail.1') | {'upscale': upscale_of(shapes, r'tail\.0')}

    def constants(self, arguments, weights):
        mean = torch.tensor(arguments.get('rgb_mean', DIV2K_MEAN)) * arguments.get('img_range', 255.0)
        fixed = {}
        for name, sign in (('sub_mean', -1), ('add_mean', 1)):
            fixed[f'{name}.weight'], fixed[f'{name}.bias'] = torch.eye(len(mean))[:, :, None, None], sign * mean
        return fixed

    def warnings(self, arguments, weights):
        return [
            f'{name} differs from the fixed mean shift of the network, which is used instead'
            for name, value in self.constants(arguments, weights).items()
            if name in weights and not is_same(weights[name], value)
        ]


class HANFormat(EDSRFormat):
    title, arch = 'HAN', 'HAN'
    detect = ('la.gamma', 'csa.gamma', 'body.0.body.0.body.3.conv_du.0.weight')
    renames = (
        *EDSRFormat.frame,
        (r'^groups\.(\d+)\.conv\.', r'body.\1.body.{num_block}.'),
        (r'^groups\.(\d+)\.blocks\.(\d+)\.', r'body.\1.body.\2.body.'),
        (r'\.body\.conv1\.', '.body.0.'),
        (r'\.body\.conv2\.', '.body.2.'),
        (r'\.body\.attention\.bottleneck\.', '.body.3.conv_du.'),
        (r'^conv_after_groups\.', 'body.{num_group}.'),
        (r'^layer_attention\.', 'la.'),
        (r'^channel_spatial_attention\.', 'csa.'),
        (r'^conv_layers\.', 'last_conv.'),
        (r'^conv_fuse\.', 'last.'),
    )

    def required(self, arguments):
        return super().required(arguments) | {'num_group': 10}

    def arguments(self, shapes):
        frame = super().arguments(shapes)
        return frame | {
            'num_group': count_blocks(shapes, r'body\.(\d+)\.body\.'),
            'num_block': count_blocks(shapes, r'body\.0\.body\.(\d+)\.body\.'),
            'squeeze_factor': frame['num_feat'] // shapes['body.0.body.0.body.3.conv_du.0.weight'][0],
        }


class RCANFormat(HANFormat):
    """For BasicSR's own RCAN."""

    title, arch = 'RCAN', 'RCAN'
    detect = ('body.0.body.0.body.3.conv_du.0.weight',)
    renames = (
        *EDSRFormat.frame,
        (r'^body\.(\d+)\.conv\.', r'body.\1.body.{num_block}.'),
        (r'^body\.(\d+)\.residual_group\.(\d+)\.rcab\.', r'body.\1.body.\2.body.'),
        (r'\.body\.3\.attention\.1\.', '.body.3.conv_du.0.'),
        (r'\.body\.3\.attention\.3\.', '.body.3.conv_du.2.'),
        (r'^conv_after_body\.', 'body.{num_group}.'),
    )

    def required(self, arguments):
        return {'num_in_ch': 3, 'res_scale': 1}


BRANCHES: Renames = (  # of the attention blocks of RNAN and of EARN's code
    (r'\.body\.0\.head\.0\.', '.body.0.RA_RB1.0.'),
    (r'\.body\.0\.trunk\.', '.body.0.RA_TB.0.body.'),
    (r'\.body\.0\.tail\.', '.body.0.RA_tail.'),
    (r'\.body\.0\.mask\.last\.', '.body.0.RA_MB.0.MB_1x1conv.0.'),
    (r'\.conv1\.', '.body.0.'),
    (r'\.conv2\.', '.body.2.'),
    (r'\.conv3\.', '.body.4.'),
)


class EARNFormat(EDSRFormat):
    """The authors' released code."""

    title, arch = 'EARN (released code)', 'EARN'
    detect = ('body.0.body.0.RA_RB1.0.body.0.weight', 'body.0.body.0.RA_MB.0.Up1x1conv.weight')
    renames = (
        *EDSRFormat.frame,
        (r'^body\.(\d+)\.', r'body.\1.body.0.'),
        (r'^conv_after_body\.', 'body.{num_block}.'),
        (r'\.attention\.([01])\.conv', r'.RA_RBPrev.\1.conv'),
        (r'\.attention\.\d\.se_(mean|std)\.', r'.ASCA.0.saeb_\1.block.'),
        (r'\.attention\.\d\.se_merged\.', '.ASCA.0.saeb_final.block.'),
        (r'\.attention\.\d\.merge\.', '.ASCA.0.small_descriptor_bottleneck.0.'),
        (r'\.attention\.\d\.bottleneck\.', '.pixel_attention.'),  # only the paper's variant has it
        (r'\.mask\.expand\.', '.RA_MB.0.Up1x1conv.'),
        (r'\.mask\.erb(\d)\.', r'.RA_MB.0.MB_RB\1.0.'),
        (r'\.mask\.attention\.(query|key|value)\.', r'.RA_MB.0.MB_Down.0.\1_conv.layers.0.'),
        (r'\.mask\.attention\.rel_', '.RA_MB.0.MB_Down.0.rel_'),
        (r'\.mask\.down\.', '.RA_MB.0.MB_Down.{down}.'),
        *BRANCHES,
    )

    def required(self, arguments):
        groups = {} if arguments['groups'] is None else {'groups': arguments['num_feat']}
        return super().required(arguments) | {'variant': 'released'} | groups

    def arguments(self, shapes):
        frame = super().arguments(shapes)
        num_feat, block = frame['num_feat'], 'body.0.body.0.'
        asca, pixel = (shapes.get(f'{block}{name}.0.weight') for name in ('ASCA.0.saeb_mean.block', 'pixel_attention'))
        squeezed = asca or pixel
        window = shapes.get(f'{block}RA_MB.0.MB_Down.0.rel_h')
        found = {'squeeze_factor': num_feat // squeezed[0]} if squeezed else {}
        found |= {'window_size': window[4]} if window else {}
        return found | {
            **frame,
            'num_block': count_blocks(shapes, r'body\.(\d+)\.body\.'),
            'variant': 'paper' if pixel else 'released',
            'groups': num_feat // shapes[f'{block}RA_MB.0.MB_RB1.0.body.0.weight'][1],
            'use_asca': asca is not None,
            'use_local_attention': window is not None,
        }

    def undetectable(self, shapes):
        return {'use_skip': (True, False)}

    def authors_name(self, name, arguments):
        return super().authors_name(name, arguments | {'down': int(arguments['use_local_attention'])})

    def authors_shape(self, authors_name, shape):
        rows = {'rel_h': (*shape[:1], 1, 1, 1, *shape[1:], 1), 'rel_w': (*shape[:1], 1, 1, 1, 1, *shape[1:])}
        return rows.get(authors_name.rpartition('.')[2], shape)


class RNANFormat(EDSRFormat):
    title, arch = 'RNAN', 'RNAN'
    detect = ('body_nl_low.0.body.1.weight', 'body_nl_high.0.body.1.weight')
    renames = (
        *EDSRFormat.frame,
        (r'^(block_first|block_last|body\.\d+)\.(?!conv\.)', r'\1.body.0.'),
        (r'^(block_first|block_last|body\.\d+)\.conv\.', r'\1.body.1.'),
        (r'^block_first\.', 'body_nl_low.0.'),
        (r'^block_last\.', 'body_nl_high.0.'),
        (r'^conv_after_body\.', 'body.{num_local}.'),
        (r'\.body\.0\.head\.', '.body.0.RA_RB1.0.'),
        (r'\.mask\.attention\.value\.', '.RA_MB.0.MB_RB1.0.g.'),
        (r'\.mask\.attention\.project\.', '.RA_MB.0.MB_RB1.0.W.'),
        (r'\.mask\.attention\.query\.', '.RA_MB.0.MB_RB1.0.theta.'),
        (r'\.mask\.attention\.key\.', '.RA_MB.0.MB_RB1.0.phi.'),
        (r'^(body_nl_.+)\.mask\.rb1\.', r'\1.RA_MB.0.MB_RB1.1.'),
        (r'\.mask\.rb([13])\.', r'.RA_MB.0.MB_RB\1.0.'),
        (r'\.mask\.rb2\.', '.RA_MB.0.MB_RB2.'),
        (r'\.mask\.down\.', '.RA_MB.0.MB_Down.0.'),
        (r'\.mask\.up\.', '.RA_MB.0.MB_Up.0.'),
        *BRANCHES,
    )

    def arguments(self, shapes):
        return super().arguments(shapes) | {'num_block': 2 + count_blocks(shapes, r'body\.(\d+)\.body\.')}

    def authors_name(self, name, arguments):
        return super().authors_name(name, arguments | {'num_local': arguments['num_block'] - 2})


class A2NFormat(CheckpointFormat):
    title, arch = 'A2N', 'A2N'
    detect = ('AAB_trunk.0.conv_first.weight', 'trunk_conv.weight')
    renames = (
        (r'^body\.', 'AAB_trunk.'),
        (r'\.dynamic_attention\.', '.ADM.'),
        (r'\.attention\.conv_mask([12])\.', r'.attention.k\1.'),
        (r'\.attention\.conv\.', '.attention.k3.'),
        (r'\.attention\.conv_last\.', '.attention.k4.'),
        (r'^conv_after_body\.', 'trunk_conv.'),
        (r'^upsample\.0\.conv1\.', 'upconv1.'),
        (r'^upsample\.0\.attention\.', 'att1.conv.'),
        (r'^upsample\.0\.conv2\.', 'HRconv1.'),
        (r'^upsample\.1\.conv1\.', 'upconv2.'),
        (r'^upsample\.1\.attention\.', 'att2.conv.'),
        (r'^upsample\.1\.conv2\.', 'HRconv2.'),
    )

    def required(self, arguments):
        # the file does not record the range
        return {'branch_weights': 'dynamic', 'img_range': 255, 'fused': False}

    def arguments(self, shapes):
        fused = 'AAB_trunk.0.branches.non_attention.weight' in shapes
        non_attention = 'AAB_trunk.0.branches.non_attention' if fused else 'AAB_trunk.0.non_attention'
        num_upfeat = shapes['att1.conv.weight'][0]
        found = frame_of(shapes, 'conv_first', 'conv_last') | {
            'num_upfeat': num_upfeat,
            'num_block': count_blocks(shapes, r'AAB_trunk\.(\d+)\.'),
            'variant': 'A2N-M' if shapes[f'{non_attention}.weight'][-1] == 1 else 'A2N',
            'fused': fused,
        }
        found |= {'branch_weights': 'dynamic'} if 'AAB_trunk.0.ADM.0.weight' in shapes else {}
        if 'upconv2.weight' in shapes:
            return found | {'upscale': 4}
        return found | ({'upscale': math.isqrt(shapes['upconv1.weight'][0] // num_upfeat)} if fused else {})

    def undetectable(self, shapes):
        fixed = ('attention', 'non_attention', 'equal')
        found = {} if 'AAB_trunk.0.ADM.0.weight' in shapes else {'branch_weights': fixed}
        return found if 'upscale' in self.arguments(shapes) else found | {'upscale': (2, 3)}


class LGVANFormat(CheckpointFormat):
    title, arch = 'LGVAN', 'LGVAN'
    detect = ('layers.0.atten.proj_1.weight', 'layers.0.MLP.fc1.weight')
    nested = ('params', 'params_ema')
    renames = (
        (r'^body\.(\d+)\.0\.', r'layers.\1.atten.'),
        (r'^body\.(\d+)\.1\.', r'layers.\1.MLP.'),
        (r'\.atten\.proj_in\.', '.atten.proj_1.'),
        (r'\.atten\.proj_out\.', '.atten.proj_2.'),
        (r'\.gate\.proj_in\.', '.gate.head.'),
        (r'\.gate\.local\.', '.gate.conv0.'),
        (r'\.gate\.wide\.', '.gate.conv_spatial.'),
        (r'\.gate\.strip5\.row\.', '.gate.conv_v.'),
        (r'\.gate\.strip5\.column\.', '.gate.conv_h.'),
        (r'\.gate\.strip3\.row\.', '.gate.conv_v_2.'),
        (r'\.gate\.strip3\.column\.', '.gate.conv_h_2.'),
        (r'\.gate\.proj_out\.', '.gate.conv1.'),
        (r'\.gate\.', '.spatial_gating_unit.'),
        (r'\.MLP\.expand\.', '.MLP.fc1.'),
        (r'\.MLP\.depthwise\.', '.MLP.dwconv.'),
        (r'\.MLP\.reduce\.', '.MLP.fc2.'),
        (r'^upsample\.', 'upsapling.'),
    )

    def required(self, arguments):
        return {'fused': False}

    def arguments(self, shapes):
        last = 'conv_last' if 'conv_last.weight' in shapes else 'upsapling.3'  # of our fused form
        return frame_of(shapes, 'conv_first', last) | {
            'num_block': count_blocks(shapes, r'layers\.(\d+)\.'),
            'upscale': upscale_of({n: s for n, s in shapes.items() if not n.startswith(last)}, 'upsapling'),
            'fused': 'layers.0.atten.scale' not in shapes,
        }


class RK4RDNFormat(CheckpointFormat):
    """Their code has two networks: Heun steps with dual attention, Gaussian; and Euler steps without attention.

    It saves a coefficient for the Euler steps as well, which it does not use.
    """

    title, arch = 'ODE-RDN', 'RK4RDN'
    detect = ('sfe1.weight', 'rdbs.0.lff.weight', 'gff.0.weight')
    unused = r'rdbs\.\d+\.(one_\w+|spatial_att\.(theta|phi)\.(weight|bias))'  # by Euler steps; in Gaussian mode
    renames = (
        (r'^body\.(\d+)\.function\.0\.layers\.(\d+)\.', r'rdbs.\1.layers.\2.conv.'),
        (r'^body\.(\d+)\.function\.0\.local_fusion\.', r'rdbs.\1.lff.'),
        (r'^body\.(\d+)\.function\.\d\.bottleneck\.', r'rdbs.\1.se.fc.'),
        (r'^body\.(\d+)\.function\.1\.value\.', r'rdbs.\1.spatial_att.g.'),
        (r'^body\.(\d+)\.function\.1\.project\.', r'rdbs.\1.spatial_att.W.'),
        (r'^body\.(\d+)\.function\.1\.query\.', r'rdbs.\1.spatial_att.theta.'),
        (r'^body\.(\d+)\.function\.1\.key\.', r'rdbs.\1.spatial_att.phi.'),
        (r'^body\.', 'rdbs.'),
        (r'^global_fusion\.', 'gff.'),
        (r'^conv_first\.', 'sfe1.'),
        (r'^conv_second\.', 'sfe2.'),
        (r'^upsample\.', 'upscale.'),
        (r'^conv_last\.', 'output.'),
    )

    def required(self, arguments):
        if arguments['attention'] == 'none':
            return {'attention': 'none', 'order': 1}
        return {'attention': 'dual', 'order': 2, 'non_local_mode': 'gaussian'}

    def arguments(self, shapes):
        found = self.own_arguments(shapes)
        if found['attention'] == 'none':
            return found | {'order': 1}
        return {name: value for name, value in found.items() if name not in self.undetectable(shapes)}

    def own_arguments(self, shapes):
        frame = frame_of(shapes, 'sfe1', 'output')
        spatial, squeezed = 'rdbs.0.spatial_att.g.weight' in shapes, shapes.get('rdbs.0.se.fc.0.weight')
        found = frame | {
            'num_grow_ch': shapes['rdbs.0.layers.0.conv.weight'][0],
            'num_block': count_blocks(shapes, r'rdbs\.(\d+)\.'),
            'num_layer': count_blocks(shapes, r'rdbs\.0\.layers\.(\d+)\.'),
            'upscale': upscale_of(shapes, 'upscale'),
            'order': 1 + ('rdbs.0.one_half' in shapes) + 2 * ('rdbs.0.one_sixth' in shapes),
            'attention': ('none', 'spatial', 'channel', 'dual')[spatial + 2 * bool(squeezed)],
        }
        if spatial:
            found['non_local_mode'] = 'embedded' if 'rdbs.0.spatial_att.theta.weight' in shapes else 'gaussian'
        return found | ({'squeeze_factor': frame['num_feat'] // squeezed[0]} if squeezed else {})

    def undetectable(self, shapes):
        own = self.own_arguments(shapes)
        found = {'non_local_mode': ('gaussian', 'embedded')} if 'non_local_mode' in own else {}
        is_known = own['attention'] in ('none', 'dual') or own['order'] == 1
        return found if is_known else found | {'order': (1, own['order'])}

    def authors_shape(self, authors_name, shape):
        return shape[:2] if '.se.fc.' in authors_name else shape

    def constants(self, arguments, weights):
        """The coefficient of Euler steps, or θ and φ in Gaussian mode, which the authors' code does not use."""
        if arguments['attention'] == 'none':
            return {f'rdbs.{block}.one_half': torch.tensor([0.5]) for block in range(arguments['num_block'])}
        ends = [(end, f'g.{end}') for end in ('weight', 'bias')]
        return {
            f'rdbs.{block}.spatial_att.{name}.{end}': torch.zeros_like(weights[f'rdbs.{block}.spatial_att.{like}'])
            for block in range(arguments['num_block'])
            for name in ('theta', 'phi')
            for end, like in ends
        }


class DualAttentionRCANFormat(CheckpointFormat):
    """For our names alone: the authors have not published theirs."""

    title, arch = 'DualAttentionRCAN', 'DualAttentionRCAN'
    detect = ('body.0.blocks.0.attention.0.value.weight', 'body.0.blocks.0.attention.1.bottleneck.0.weight')

    def arguments(self, shapes):
        frame = frame_of(shapes, 'conv_first', 'conv_last')
        embedded = 'body.0.blocks.0.attention.0.query.weight' in shapes
        return frame | {
            'num_group': count_blocks(shapes, r'body\.(\d+)\.'),
            'num_block': count_blocks(shapes, r'body\.0\.blocks\.(\d+)\.'),
            'upscale': upscale_of(shapes, 'upsample'),
            'non_local_mode': 'embedded' if embedded else 'gaussian',
            'squeeze_factor': frame['num_feat'] // shapes['body.0.blocks.0.attention.1.bottleneck.0.weight'][0],
        }


# HAN before RCAN, whose names its checkpoints also have
FORMATS = [kind() for kind in (A2NFormat, LGVANFormat, RK4RDNFormat, RNANFormat, EARNFormat, HANFormat, RCANFormat)]
