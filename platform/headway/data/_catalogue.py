"""The data sets that headway knows by name: what they are, what may be done with them, where they are.

Sizes and SHA-256 are of the files as their publishers distribute them; the MD5 that torchvision and
the University of Toronto publish belong to the same files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RemoteFile:
    """A file on the network."""

    url: str
    num_bytes: int
    sha256: str
    """Of the file as it is downloaded."""
    content_sha256: str | None = None
    """Of what is inside a .gz, which recompressing it leaves as it is."""

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Dataset:
    """A data set that headway knows by name."""

    summary: str
    num_bytes: int
    """On disk; 0 where it comes with a package that headway needs anyway, or is generated."""
    licence: str
    embedded: str | None = None
    """How it is there without a download; None where there is one."""
    module: str | None = None
    """The optional Python module that it comes with."""
    files: tuple[RemoteFile, ...] = ()
    """What `fetch` downloads; none where there is nothing to fetch."""
    members: tuple[str, ...] = ()
    """Files or folders taken out of the downloaded archive; none where the files are used as they are."""
    package: str | None = None
    """The Debian package that brings the same files."""
    package_folder: Path | None = None
    """Where that package puts them."""

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the files that a reader finds in the data set's folder."""
        return self.members or tuple(file.name for file in self.files)


def _idx_files(address: str, checksums: dict[str, tuple[int, str, str | None]]) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(f"{address}/{name}.gz", *facts) for name, facts in checksums.items())


_HANDBOOK_LANGUAGES = (
    *(
        "ar-MA",
        "ca-ES",
        "cs-CZ",
        "da-DK",
        "de-DE",
        "el-GR",
        "en-US",
        "es-ES",
        "fa-IR",
        "fr-FR",
        "hr-HR",
        "id-ID",
        "it-IT",
    ),
    *(
        "ja-JP",
        "ko-KR",
        "nb-NO",
        "nl-NL",
        "pl-PL",
        "pt-BR",
        "ro-RO",
        "ru-RU",
        "sv-SE",
        "tr-TR",
        "vi-VN",
        "zh-CN",
        "zh-TW",
    ),
)

DATASETS: dict[str, Dataset] = {
    "digits": Dataset("1,797 handwritten digits of 8x8 pixels, 10 classes", 0, "CC BY 4.0", "comes with scikit-learn"),
    "glyphs": Dataset("drawn and distorted digits of 8x8 pixels, 10 classes", 0, "none needed", "is generated"),
    "breast_cancer": Dataset("569 breast masses, 30 values, 2 classes", 0, "CC BY 4.0", "comes with scikit-learn"),
    "diabetes": Dataset("442 patients, 10 values, one real target", 0, "BSD-3-Clause", "comes with scikit-learn"),
    "two_moons": Dataset("two half circles of points in the plane, 2 classes", 0, "none needed", "is generated"),
    "xor": Dataset("four corners of a square with noise, 2 classes", 0, "none needed", "is generated"),
    "python_docs": Dataset("Python's reference topics in English (kind: text)", 0, "PSF-2.0", "comes with Python"),
    "python_source": Dataset("Python's standard library (kind: text)", 0, "PSF-2.0", "comes with Python"),
    "names": Dataset(
        "names of countries, languages and currencies in many languages (kinds: translation, masked_text, text_folder)",
        0,
        "LGPL-2.1",
        "comes with pycountry (pip install 'headway[translation]')",
        module="pycountry",
    ),
    "debian_handbook": Dataset(
        "the Debian Administrator's Handbook in 26 languages (kind: translation, source: handbook)",
        62_154_957,
        "GPL-2+ or CC BY-SA 3.0",
        files=(
            RemoteFile(
                "https://deb.debian.org/debian/pool/main/d/debian-handbook/debian-handbook_11.20220922_all.deb",
                34_758_056,
                "3d5dbeac1f1afc9c094eab9d0f701f6ecff99c4927d5a4794cf6c85678134faa",
            ),
        ),
        members=_HANDBOOK_LANGUAGES,
        package="debian-handbook",
        package_folder=Path("/usr/share/doc/debian-handbook/html"),
    ),
    "mnist": Dataset(
        "70,000 handwritten digits of 28x28 pixels, 10 classes (kind: mnist)",
        11_594_722,
        "CC BY-SA 3.0",
        files=_idx_files(
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            {
                "train-images-idx3-ubyte": (
                    9_912_422,
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    None,
                ),
                "train-labels-idx1-ubyte": (
                    28_881,
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    None,
                ),
                "t10k-images-idx3-ubyte": (
                    1_648_877,
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    None,
                ),
                "t10k-labels-idx1-ubyte": (
                    4_542,
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                    None,
                ),
            },
        ),
    ),
    "fashion_mnist": Dataset(
        "70,000 photographs of clothes of 28x28 pixels, 10 classes (kind: mnist, folder: fashion_mnist)",
        30_878_645,
        "MIT",
        files=_idx_files(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            {
                "train-images-idx3-ubyte": (
                    26_421_880,
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                ),
                "train-labels-idx1-ubyte": (
                    29_515,
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                ),
                "t10k-images-idx3-ubyte": (
                    4_422_102,
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                ),
                "t10k-labels-idx1-ubyte": (
                    5_148,
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                ),
            },
        ),
        package="dataset-fashion-mnist",
        package_folder=Path("/usr/share/datasets/fashion-mnist"),
    ),
    "cifar10": Dataset(
        "60,000 colour photographs of 32x32 pixels, 10 classes (kind: cifar10)",
        184_380_000,
        "none stated; for research, cite Krizhevsky 2009",
        files=(
            RemoteFile(
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
        members=(*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"),
    ),
}
