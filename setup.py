"""Install earn_plugin: the package, the basicsr command, and the options files as earn_plugin/recipes."""

import re
import sys
from pathlib import Path

from setuptools import find_packages, setup

if sys.version_info >= (3, 13):
    sys.exit(
        f'earn_plugin needs Python 3.10, 3.11 or 3.12, and this is {sys.version_info.major}.{sys.version_info.minor}: '
        'BasicSR 1.4.2, which it builds on, cannot be built on 3.13 and later (its setup.py ends in '
        "KeyError: '__version__'). Make a virtual environment with one of these, for example: python3.12 -m venv .venv"
    )

HERE = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'earn_plugin/__init__.py').read_text(encoding='utf-8'))[1]

setup(
    name='earn_plugin',
    version=VERSION,
    description='Super-resolution networks and losses for BasicSR: EARN and its kin, trained so that it can be trusted',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10,<3.13',
    packages=[*find_packages(include=['earn_plugin', 'earn_plugin.*']), 'earn_plugin.recipes', 'earn_plugin.datasets'],
    package_dir={'earn_plugin.recipes': 'options', 'earn_plugin.datasets': 'datasets'},
    package_data={'earn_plugin.recipes': ['*.yml'], 'earn_plugin.datasets': ['README.md']},
    install_requires=[
        'basicsr==1.4.2; python_version < "3.13"',  # else some pips try to build it before they look at python_requires
        'filelock',
        'fvcore',  # one of the two counters of NTIRE
        'lmdb',
        'numpy',
        'opencv-python',
        'Pillow',
        'pyyaml',
        'safetensors',
        'scikit-image',
        'setuptools',  # Python 3.12 has no distutils of its own, which basicsr imports
        'torch>=2.6',  # from here on torch.load is weights-only by default
        'torchvision',
        'tqdm',
    ],
    extras_require={'dev': ['hypothesis', 'pytest', 'pytest-xdist', 'ruff']},
    entry_points={'console_scripts': ['basicsr = earn_plugin.cli:main']},
    classifiers=[
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Image Processing',
    ],
)
