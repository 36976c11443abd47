"""Ships configs/ inside the wheel, as jaxformer/configs. Everything else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["jaxformer*"]), "jaxformer.configs"],
    package_dir={"jaxformer.configs": "configs"},
)
