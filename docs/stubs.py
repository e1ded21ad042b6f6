"""How griffe reads the hand-written stub: constructors are those of Rust, `__new__`, and a class documents them."""

from griffe import Class, Extension, Function


class Constructors(Extension):
    """Shows `__new__` where griffe looks for `__init__`."""

    def on_class_members(self, *, cls: Class, **_: object) -> None:
        """Take `__new__` for the constructor, with the signature that it has for its callers."""
        constructor = cls.members.get("__new__")
        if isinstance(constructor, Function) and "__init__" not in cls.members:
            constructor.name = "__init__"
            constructor.returns = None
            cls.members["__init__"] = constructor
            del cls.members["__new__"]
