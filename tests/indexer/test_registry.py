"""The registry of parts: built-in, registered in code, from plugins, and the effect of a broken plugin."""

from __future__ import annotations

import subprocess
import sys

import pytest

from indexer.errors import CallError, PluginError, UnknownNameError
from indexer.registry import Builtin, Plugin, Registry

GROUP = "underdrawing.tests"
BUILTIN = {
    "ordered": Builtin("collections:OrderedDict", "a dictionary with an order"),
    "count": Builtin("collections:Counter", "counts things"),
}


@pytest.fixture
def registry():
    return Registry("container", GROUP, BUILTIN)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Make a package with one module importable, with its metadata; its module's name must be new in this process."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install_one(package, points, source="class Part:\n    pass\n", summary="Adds a part"):
        module = package.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        metadata = tmp_path / f"{module}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\nSummary: {summary}\n"
        )
        lines = "".join(f"{name} = {module}:{attribute}\n" for name, attribute in points.items())
        (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
        return module

    yield install_one
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_a_builtin_is_imported_when_it_is_asked_for(registry):
    from collections import Counter

    assert registry.get("count") is Counter
    assert registry.help() == {"ordered": "a dictionary with an order", "count": "counts things"}


def test_names_and_help_import_no_part():
    code = (
        "import sys; from indexer.registry import Builtin, Registry\n"
        "names = Registry('x', 'no.such.group', {'a': Builtin('wave:open', 'reads sound')}).names()\n"
        "print(names, 'wave' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "['a'] False\n"


def test_an_unknown_name_is_answered_with_the_nearest_and_with_all(registry):
    with pytest.raises(UnknownNameError) as caught:
        registry.get("ordred")
    assert str(caught.value) == "container 'ordred' is not known. Did you mean 'ordered'? Known: ordered, count."
    assert caught.value.known == ["ordered", "count"]


def test_a_part_registered_in_code_is_found_with_the_first_line_of_its_docstring(registry):
    @registry.register("mine")
    class Mine:
        """A container of mine.

        More about it.
        """

    assert registry.get("mine") is Mine
    assert registry.help()["mine"] == "A container of mine."
    assert registry.names() == ["ordered", "count", "mine"]


def test_a_taken_name_is_refused_with_its_owner(registry):
    with pytest.raises(CallError, match=r"The container 'count' exists: it is collections:Counter\."):
        registry.register("count")
    registry.register("mine")(list)
    with pytest.raises(CallError, match=r"The container 'mine' exists: it is <class 'list'>\."):
        registry.register("mine")


def test_what_is_no_such_part_is_not_registered(registry):
    with pytest.raises(CallError, match="5 cannot be registered as the container 'mine'"):
        registry.register("mine")(5)
    assert "mine" not in registry


def test_a_package_adds_a_part_by_an_entry_point(registry, install):
    install("other-part", {"theirs": "Part"})
    assert registry.get("theirs").__module__ == "other_part"
    assert registry.names() == ["ordered", "count", "theirs"]
    assert registry.help()["theirs"] == "Adds a part (other-part 1.0)"
    assert registry.plugins() == [Plugin("theirs", "other-part 1.0", "other_part:Part", "Adds a part")]


def test_listing_a_plugin_does_not_import_it(registry, install):
    module = install("quiet-part", {"quiet": "Part"})
    assert "quiet" in registry.help()
    assert module not in sys.modules


def test_a_builtin_is_found_without_reading_entry_points(registry, monkeypatch):
    monkeypatch.setattr("importlib.metadata.entry_points", None)
    assert registry.get("count").__name__ == "Counter"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module\n", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'."),
        ("def broken(:\n", "cannot be imported: SyntaxError: "),
        ("1 / 0\n", "cannot be imported: ZeroDivisionError: division by zero."),
        ("", "cannot be imported: AttributeError: "),
        ("Part = 5\n", "is of type int, which cannot be used as a container."),
    ],
)
def test_a_broken_plugin_costs_itself(registry, install, source, reason):
    install("broken-part", {"broken": "Part"}, source)
    install("good-part", {"good": "Part"})
    for _ in range(2):
        with pytest.raises(PluginError) as caught:
            registry.get("broken")
        assert "The container 'broken' of the package broken-part 1.0 (broken_part:Part) " + reason in str(caught.value)
    assert registry.get("good").__name__ == "Part"
    assert registry.names() == ["ordered", "count", "broken", "good"]


def test_a_plugin_cannot_replace_a_builtin(registry, install):
    install("greedy-part", {"count": "Part"})
    assert registry.get("count").__module__ == "collections"
    (plugin,) = registry.plugins()
    assert plugin.problem == (
        "The container 'count' is built in (collections:Counter); greedy-part 1.0 (greedy_part:Part) cannot replace it."
    )
    assert registry.help()["count"] == "counts things"


def test_of_two_packages_with_one_name_neither_wins(registry, install):
    install("first-part", {"same": "Part"})
    install("second-part", {"same": "Part"})
    message = "Several packages offer a container 'same': first-part 1.0 (first_part:Part), second-part 1.0"
    with pytest.raises(PluginError) as caught:
        registry.get("same")
    assert message in str(caught.value)
    assert [plugin.problem is not None for plugin in registry.plugins()] == [True, True]
