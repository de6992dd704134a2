"""The parameter names of the authors' EARN code, and ours for them."""

import re

BLOCKS = {
    'RA_RBPrev.0': 'attention.0',
    'RA_RBPrev.1': 'attention.1',
    'ASCA.0.saeb_mean.block': 'attention.2.se_mean',
    'ASCA.0.saeb_std.block': 'attention.2.se_std',
    'ASCA.0.small_descriptor_bottleneck.0': 'attention.2.fuse',
    'ASCA.0.saeb_final.block': 'attention.2.se_fused',
    'RA_RB1.0': 'head.0',
    'RA_TB.0.body.0': 'trunk.0',
    'RA_TB.0.body.1': 'trunk.1',
    'RA_MB.0.Up1x1conv': 'mask.expand',
    'RA_MB.0.MB_RB1.0': 'mask.erb1',
    'RA_MB.0.MB_RB2.0': 'mask.erb2',
    'RA_MB.0.MB_RB3.0': 'mask.erb3',
    'RA_MB.0.MB_1x1conv.0': 'mask.last',
    'RA_MB.0.MB_Down.0.query_conv.layers.0': 'mask.attention.query',
    'RA_MB.0.MB_Down.0.key_conv.layers.0': 'mask.attention.key',
    'RA_MB.0.MB_Down.0.value_conv.layers.0': 'mask.attention.value',
    'RA_MB.0.MB_Down.0.rel_h': 'mask.attention.rel_h',
    'RA_MB.0.MB_Down.0.rel_w': 'mask.attention.rel_w',
    'RA_MB.0.MB_Down.0': 'mask.down',  # without local attention
    'RA_MB.0.MB_Down.1': 'mask.down',
    'RA_tail.0': 'tail.0',
    'RA_tail.1': 'tail.1',
}
WHOLE = {'head.0': 'conv_first', 'tail.0': 'upsample', 'tail.1': 'conv_last'}


def ours(name: str) -> str:
    block = re.fullmatch(r'body\.(\d+)\.body\.0\.(.+)', name)
    if block is None:
        for theirs, mine in WHOLE.items():
            if name.startswith(f'{theirs}.'):
                return mine + name.removeprefix(theirs)
        return re.sub(r'^body\.\d+', 'conv_after_body', name)
    rest = block[2]
    for theirs, mine in BLOCKS.items():
        if rest == theirs or rest.startswith(f'{theirs}.'):
            rest = mine + rest.removeprefix(theirs)
            break
    rest = re.sub(r'\.body\.(\d)\.', lambda m: f'.conv{int(m[1]) // 2 + 1}.', rest)
    return f'body.{block[1]}.{rest}'


def convert(weights: dict) -> dict:
    """The relative embeddings lose their axes of length 1."""
    return {ours(k): v.reshape(v.shape[0], -1) if '.rel_' in k else v for k, v in weights.items()}
