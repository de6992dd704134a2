"""published.yml against the recipes: a published figure is found for the network that has it, and for no other."""

from earn_plugin.convert.weight_files import describe_network
from earn_plugin.options.options_file import read_options, recipes
from earn_plugin.results.published_figures import published_figures, published_protocols

WITHOUT_RECIPE = ('EARN without ASCA', 'EARN without skip connections', 'EARN without local attention', 'RCAN')


def test_a_figure_is_that_of_the_recipe_of_its_network():
    networks = {}
    for path in recipes():
        options = read_options(path).data
        described = describe_network('net_g', options)
        networks[path.stem] = options['scale'], {'type': described['arch'], **described['arguments']}.items()
    for figure in published_figures():
        found = {
            name for name, (x, network) in networks.items() if x == figure.scale and figure.network.items() <= network
        }
        names = {f'{kind}_{figure.name.removesuffix("+")}_x{figure.scale}' for kind in ('train', 'test')}
        assert found == (set() if figure.name in WITHOUT_RECIPE else names), figure


def test_every_figure_has_a_source_and_a_known_protocol():
    figures = published_figures()
    assert len({(f.name, f.scale, f.dataset) for f in figures}) == len(figures)
    for figure in figures:
        assert figure.source and figure.values
        assert set(figure.protocols.values()) <= set(published_protocols())
        assert 20 < float(figure.values['PSNR']) < 45 and 0.5 < float(figure.values.get('SSIM', '0.9')) < 1
