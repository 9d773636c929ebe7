"""Hides modules that an interpreter has loaded from the programs that it runs, until a program imports them.

A module that is in `sys.modules` without having been imported would change programs: after `import collections`, the name
`collections.abc` would work or not, depending on what the interpreter needed itself.
"""

import builtins
import sys
from _frozen_importlib import ModuleSpec
from types import ModuleType

_PACKAGE = __name__.split(".")[0]


class Shelf:
    """The modules that this process imports from now on. `close` hides them from `sys.modules` and makes this object a finder, which
    gives a module back together with the modules that it imports itself."""

    def __init__(self, fresh: "set[str]") -> None:
        """`fresh`: the names of the modules that a new interpreter has; they are never hidden."""
        self._fresh = fresh
        for name in sys.modules.keys() - fresh:
            # This module has imported it, and nobody noted what it imports itself.
            if name.split(".")[0] != _PACKAGE:
                del sys.modules[name]
        self._modules: dict[str, ModuleType] = {}
        self._imports: dict[str, dict[str, None]] = {}  # by module: the names that its body imports, in order
        self._specs: dict[str, ModuleSpec | None] = {}
        self._import = builtins.__import__
        builtins.__import__ = self._note  # type: ignore[assignment]

    def _note(
        self,
        name: str,
        names: "dict[str, str] | None" = None,
        local: "dict[str, str] | None" = None,
        fromlist: "tuple[str, ...] | None" = (),
        level: int = 0,
    ) -> ModuleType:
        """`__import__`, noting which module imports what."""
        module = self._import(name, names, local, fromlist or (), level)
        if names and (importer := names.get("__name__")):
            package = (names.get("__package__") or "").split(".")
            parts = package[: len(package) - level + 1] if level else []
            parts += name.split(".") if name else []
            full = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
            full += [f"{full[-1]}.{child}" for child in fromlist or ()]
            self._imports.setdefault(importer, {}).update(dict.fromkeys(full))
        return module

    def close(self) -> None:
        """Hide all modules that are not fresh. Modules of this package are removed."""
        builtins.__import__ = self._import
        imported = {name for names in self._imports.values() for name in names}
        for name in [name for name in sys.modules if name not in self._fresh]:
            module = sys.modules.pop(name)
            parent, _, child = name.rpartition(".")
            owner = self._modules.get(parent) or sys.modules.get(parent)
            if owner and vars(owner).get(child) is module:
                delattr(owner, child)
            if parent and name not in imported:  # the parent has put it there itself
                self._imports.setdefault(parent, {})[name] = None
            if name.split(".")[0] != _PACKAGE:
                self._modules[name] = module
        sys.meta_path.insert(0, self)

    def drop(self) -> None:
        """Let go of all hidden modules."""
        self._modules.clear()
        self._imports.clear()

    def find_spec(self, name: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        """See `importlib.abc.MetaPathFinder`."""
        return ModuleSpec(name, self) if name in self._modules else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The hidden module; it and the modules that it imports are hidden no longer."""
        module = self._modules[spec.name]
        self._specs[spec.name] = module.__spec__
        self._put(spec.name)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own spec again: it has been executed already."""
        module.__spec__ = self._specs.pop(module.__name__)

    def _put(self, name: str) -> None:
        if (module := self._modules.pop(name, None)) is None:
            return
        sys.modules[name] = module
        for other in self._imports.get(module.__name__, ()):
            self._put(other)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
