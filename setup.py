"""What pyproject.toml has no words for: the recipes of `scripts/` lie inside the package once it is installed."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["solo", "solo.*"]), "solo.scripts"],
    package_dir={"solo.scripts": "scripts"},
)
