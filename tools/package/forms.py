"""What each build system wants where: a table of files by the form of a package."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Form:
    """The layout of a package. Names of files may hold ``{name}``, ``{pack}`` and ``{version}``.

    Parameters
    ----------
    sources, headers : str
        Folders for the network's sources with their own headers, and for the header that programs include.
    files : dict
        Template by the file that it makes.
    longest_name : int
        Characters that a name may have there.
    server : str, optional
        Folder for the test server's sources.
    archive : str, optional
        A zip file of all others.
    """

    sources: str
    headers: str
    files: dict[str, str] = field(default_factory=dict)
    longest_name: int = 128
    server: str | None = None
    archive: str | None = None


_TEXTS = {"README.md": "README.md.j2", "LICENSE": "LICENSE.j2"}
#: By what `--format` calls them.
FORMS: dict[str, Form] = {
    "cmake": Form(
        sources="src",
        headers="include",
        files={
            **_TEXTS,
            "CMakeLists.txt": "cmake/CMakeLists.txt.j2",
            "cmake/{name}-config.cmake.in": "cmake/config.cmake.in.j2",
            "cmake/toolchain.cmake": "cmake/toolchain.cmake.j2",
            "example/main.c": "main.c.j2",
            "example/{name}_golden.h": "golden.h.j2",
        },
    ),
    "zephyr": Form(
        sources="src",
        headers="include",
        files={
            **_TEXTS,
            "zephyr/module.yml": "zephyr/module.yml.j2",
            "CMakeLists.txt": "zephyr/CMakeLists.txt.j2",
            "Kconfig": "zephyr/Kconfig.j2",
            "samples/classify/CMakeLists.txt": "zephyr/classify_CMakeLists.txt.j2",
            "samples/classify/prj.conf": "zephyr/classify_prj.conf.j2",
            "samples/classify/sample.yaml": "zephyr/classify_sample.yaml.j2",
            "samples/classify/src/main.c": "main.c.j2",
            "samples/classify/src/{name}_golden.h": "golden.h.j2",
            "samples/server/CMakeLists.txt": "zephyr/server_CMakeLists.txt.j2",
            "samples/server/prj.conf": "zephyr/server_prj.conf.j2",
            "samples/server/app.overlay": "zephyr/server_app.overlay.j2",
        },
        server="samples/server/src",
    ),
    "arduino": Form(
        sources="src",
        headers="src",
        files={
            **_TEXTS,
            "library.properties": "arduino/library.properties.j2",
            "examples/Classify/Classify.ino": "arduino/Classify.ino.j2",
            "examples/Classify/{name}_golden.h": "golden.h.j2",
        },
        longest_name=63,
    ),
    "platformio": Form(
        sources="src",
        headers="include",
        files={
            **_TEXTS,
            "library.json": "platformio/library.json.j2",
            "examples/classify/platformio.ini": "platformio/platformio.ini.j2",
            "examples/classify/src/main.cpp": "arduino/Classify.ino.j2",
            "examples/classify/src/{name}_golden.h": "golden.h.j2",
        },
        longest_name=50,
    ),
    "cmsis-pack": Form(
        sources="src",
        headers="include",
        files={
            **_TEXTS,
            "{pack}.pdsc": "cmsis_pack/pack.pdsc.j2",
            "template/main.c": "main.c.j2",
            "template/{name}_golden.h": "golden.h.j2",
        },
        # With the vendor's name and a version it is the name of a file.
        longest_name=63,
        archive="{pack}.{version}.pack",
    ),
}
