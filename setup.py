"""What pyproject.toml cannot say: a wheel carries params.yaml and profiles/, which stand at the top
of a checkout, as `ml/defaults`, where `ml.settings.files` reads them."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SETTINGS = ("params.yaml", "profiles/*.yaml")


class WithSettings(build_py):
    def run(self):
        super().run()
        if self.editable_mode:  # the checkout's own files are read
            return
        target = Path(self.build_lib, "ml", "defaults")
        for file in (file for pattern in SETTINGS for file in sorted(Path().glob(pattern))):
            self.mkpath(str((target / file).parent))
            self.copy_file(str(file), str(target / file))


setup(cmdclass={"build_py": WithSettings})
