"""The kind of a file by its name: image, text, table, shard, system file, or something known to be none of these.

Where a name tells nothing, `content.py` looks into the file.
"""

from __future__ import annotations

from indexer.corpus.image_formats import KNOWN_SUFFIXES

DRAWING = ".svg"
DETAILS = ".json"
TEXTS = (".txt", ".md")

HIDDEN_FILE, HIDDEN_FOLDER = "hidden file", "hidden folder"
SYSTEM_FILE, SYSTEM_FOLDER = "system file", "system folder"
NO_SUFFIX = "no suffix"

_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"})

_RAW = (
    ".3fr .ari .arw .bay .braw .cap .cr2 .cr3 .crw .dcr .dcs .dng .drf .eip .erf .fff .gpr .iiq .k25 .kdc .mdc .mef"
    " .mos .mrw .nef .nrw .obm .orf .pef .ptx .pxn .r3d .raf .raw .rw2 .rwl .rwz .sr2 .srf .srw .x3f"
)
_FILMS = ".3g2 .3gp .avi .flv .insv .lrv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .thm .ts .vob .webm .wmv"
_SOUNDS = ".aac .aiff .flac .m4a .mid .mp3 .oga .ogg .opus .wav .wma"
_PAPERS = ".doc .docx .epub .key .mobi .numbers .odp .ods .odt .pages .pdf .ppt .pptx .ps .rtf .xls .xlsx"
_PACKED = ".7z .bz2 .dmg .gz .iso .lz4 .rar .tar .tbz .tbz2 .tgz .txz .tzst .xz .zip .zst"
_DATA = (
    ".aae .arrow .bak .bib .bin .cfg .conf .csv .db .feather .h5 .hdf5 .idx .ini .ipynb .json .jsonl .lock .log .lrcat"
    " .lst .mat .md .ndjson .npy .npz .onnx .orc .parquet .pickle .pkl .pt .pth .safetensors .sqlite .srt .toml .tsv"
    " .txt .vtt .xml .xmp .yaml .yml"
)
_CODE = (
    ".bat .c .cc .class .cpp .css .dll .exe .go .h .htm .html .jar .java .js .jsx .o .php .py .pyc .rb .rs .rst .scss"
    " .sh .so .sql .ts .tsx .whl"
)
UNREAD_IMAGES = frozenset(_RAW.split()) | {
    ".jxl",
    ".psd",
    ".exr",
    ".hdr",
    ".xcf",
    ".svgz",
    ".eps",
    ".bpg",
    ".flif",
    ".qoi",
}
"""Suffixes of images that are not read here: a document with such an image is not a text document."""
NO_IMAGES = frozenset(" ".join((_RAW, _FILMS, _SOUNDS, _PAPERS, _PACKED, _DATA, _CODE)).split())
"""Suffixes of files that are known not to be readable images, and so are never opened to find out. Raw photographs are
among them: most begin like a TIFF, and a TIFF decoder gives only their thumbnail."""


def split_name(name: str) -> tuple[str, str]:
    """The stem, and the suffix in lower case."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, f".{suffix.lower()}") if dot else (name, "")


def litter_kind(name: str) -> str | None:
    """The kind under which a hidden or system file is counted, None for other files. A folder ends in a slash."""
    is_folder = name.endswith("/")
    if name.startswith("."):
        return HIDDEN_FOLDER if is_folder else HIDDEN_FILE
    if name.removesuffix("/").lower() in _LITTER:
        return SYSTEM_FOLDER if is_folder else SYSTEM_FILE
    return None


def is_image_name(name: str) -> bool | None:
    """Whether a file counts as an image by its name, SVG included; None if the name does not tell."""
    suffix = split_name(name)[1]
    if suffix in KNOWN_SUFFIXES or suffix == DRAWING:
        return True
    return False if suffix in NO_IMAGES else None
