"""Hands the requirement lists in settings.ini to setuptools; the rest is in pyproject.toml."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

settings = ConfigParser(delimiters=["="])
settings.read(Path(__file__).with_name("settings.ini"), encoding="utf-8")
lists = settings["DEFAULT"]

setup(
    install_requires=lists["requirements"].split(),
    extras_require={
        "lab": lists["lab_requirements"].split(),
        "umap": lists["umap_requirements"].split(),
        "dev": lists["dev_requirements"].split(),
    },
)
