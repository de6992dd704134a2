from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.models.sr_model import SRModel

from earn_plugin.options.basicsr_keys import has_source, keys_read


class Base:
    def __init__(self, opt):
        self.opt = opt
        self.a = opt['alpha']
        train_opt = self.opt['train']
        self.b = train_opt.get('beta', 0)
        if 'gamma' in opt and 'delta' not in self.opt['val']:
            train_opt['optim'].pop('type')
        self.c = self.other['epsilon']
        self.d = self.opt[self.a]


class Derived(Base):
    def more(self):
        return self.opt['val']['metrics'].get('zeta')


def test_finds_exactly_the_keys_that_are_read():
    assert keys_read(Base) == {
        ('alpha',),
        ('train',),
        ('train', 'beta'),
        ('train', 'optim'),
        ('train', 'optim', 'type'),
        ('gamma',),
        ('val',),
        ('val', 'delta'),
    }
    assert keys_read(Derived) - keys_read(Base) == {('val', 'metrics'), ('val', 'metrics', 'zeta')}


def test_reads_basicsr():
    assert {('train', 'ema_decay'), ('path', 'strict_load_g'), ('val', 'metrics')} <= keys_read(SRModel)
    assert {('gt_size',), ('filename_tmpl',), ('io_backend', 'type')} <= keys_read(PairedImageDataset)


def test_a_class_without_source_reads_what_its_bases_do():
    made = type('Made', (Derived,), {})
    assert not has_source(made)
    assert keys_read(made) == keys_read(Derived)
    assert has_source(Derived)
