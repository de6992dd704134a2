"""Install earn_plugin: the package, the basicsr command, and the options files as earn_plugin/recipes."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'earn_plugin/__init__.py').read_text(encoding='utf-8'))[1]

setup(
    name='earn_plugin',
    version=VERSION,
    description='Super-resolution networks and losses for BasicSR: EARN and related networks, trained reproducibly',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=[*find_packages(include=['earn_plugin', 'earn_plugin.*']), 'earn_plugin.recipes', 'earn_plugin.datasets'],
    package_dir={'earn_plugin.recipes': 'options', 'earn_plugin.datasets': 'datasets'},
    package_data={
        'earn_plugin.report': ['*.css', '*.html', '*.js'],
        'earn_plugin.results': ['*.yml'],
        'earn_plugin.weights': ['*.safetensors', '*.md'],
        'earn_plugin.recipes': ['*.yml'],
        'earn_plugin.datasets': ['README.md'],
    },
    install_requires=[
        'basicsr==1.4.2',
        'filelock',
        'fvcore',  # one of the two counters of NTIRE
        'lmdb',
        'numpy',
        'opencv-python>=4.12',
        'Pillow',
        'pyyaml',
        'safetensors',
        'scikit-image',
        'setuptools<82',  # has distutils, which basicsr imports and Python 3.12 has not; tensorboard's pkg_resources
        'torch>=2.6',  # from here on torch.load is weights-only by default
        'torchvision',
        'tqdm',
    ],
    extras_require={
        'figures': ['matplotlib'],
        'export': ['onnx', 'onnxruntime', 'onnxscript'],
        'spandrel': ['spandrel'],
        'dev': ['earn_plugin[export,figures,spandrel]', 'hypothesis', 'pytest', 'pytest-xdist', 'ruff'],
    },
    entry_points={'console_scripts': ['basicsr = earn_plugin.cli:main']},
    classifiers=[
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Image Processing',
    ],
)
